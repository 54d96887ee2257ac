"""Trains the bundled checkpoint `general`: SIRST and SIRST-V2 together, of whose frames most hold no target.

    python benchmarks/general.py path/to/sirst path/to/sirst-v2 --init sirst --output runs/general

Few of SIRST-V2's frames hold a target, so those that do are taken several times an epoch. A stopped run goes on with
the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from repeats import Chosen

from serank import SeRankDet
from serank.augment import Augmentation
from serank.datasets import FolderDataset, JoinedSamples
from serank.train import Recipe, fit


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sirst", help="folder of SIRST, with train.txt and val.txt")
    parser.add_argument("sirst_v2", help="folder of what SIRST-V2 adds, with train.txt and val.txt")
    parser.add_argument("--output", required=True)
    parser.add_argument("--init", default="sirst", help="checkpoint to start from")
    parser.add_argument("--repeat", type=int, default=4, help="times that SIRST-V2's frames with a target are taken")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=8e-4)
    parser.add_argument("--working-size", type=int, default=800)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--validate-every", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    roots = (options.sirst, options.sirst_v2)
    first, second = (FolderDataset(root, "train", cache=True) for root in roots)
    with_target = [i for i in range(len(second)) if second[i].mask.any()]
    train_set = JoinedSamples([first, second, Chosen(second, with_target * (options.repeat - 1))])
    val_set = JoinedSamples([FolderDataset(root, "val", cache=True) for root in roots])
    model = SeRankDet.from_pretrained(options.init).reconfigured(
        working_size=options.working_size, scale_range=(0.75, 2.0)
    )
    recipe = Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.lr,
        clip=2.0,
        loss="soft_iou_area",
        pixel_weight=50.0,
        deep_supervision=False,
        average=0.998,
        precision="bfloat16",
        validate_every=options.validate_every,
        seed=options.seed,
        augmentation=Augmentation(crop=options.crop, scale=(0.6, 1.5), target_share=0.7, paste=0.5),
    )
    fit(model, train_set, val_set, recipe=recipe, output=options.output, resume=True, progress=True)


if __name__ == "__main__":
    main()
