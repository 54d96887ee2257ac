"""Trains the bundled checkpoint `general`: SIRST and SIRST-V2 together, of whose frames most hold no target.

    python benchmarks/general.py path/to/sirst path/to/sirst-v2 --init sirst --output runs/general

Few of SIRST-V2's frames hold a target, so those that do are taken several times an epoch, and so are, with `--hard`,
those without one in which the network that training starts from detects something. A stopped run goes on with the same
command. The card of `general` has the commands that it was made with.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from repeats import Chosen

from serank import SeRankDet
from serank.datasets import FolderDataset, JoinedSamples, Sample
from serank.inference.detector import predict
from serank.train import Augmentation, Recipe, fit


def false_alarms(model: SeRankDet, samples: Sequence[Sample]) -> list[int]:
    """Indices of the frames without a target in which `model` detects something, at threshold 0.5."""
    network = model.optimize(torch.bfloat16)
    empty = [i for i, sample in enumerate(samples) if not sample.mask.any()]
    return [i for i in empty if (predict(network, [samples[i].frame], model.frame_spec)[0] > 0.5).any()]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sirst", help="folder of SIRST, with train.txt and val.txt")
    parser.add_argument("sirst_v2", help="folder of what SIRST-V2 adds, with train.txt and val.txt")
    parser.add_argument("--output", required=True)
    parser.add_argument("--init", default="sirst", help="checkpoint to start from")
    parser.add_argument("--repeat", type=int, default=4, help="times that SIRST-V2's frames with a target are taken")
    parser.add_argument("--hard", type=int, default=1, help="times that frames with false alarms alone are taken")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--pixel-weight", type=float, default=50.0)
    parser.add_argument("--average", type=float, default=0.99)
    parser.add_argument("--working-size", type=int, default=700)
    parser.add_argument("--scale-range", type=float, nargs=2, default=(0.65, 2.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--paste-close", type=float, default=0.0, help="share of pasted targets put close to another")
    parser.add_argument("--validate-every", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    roots = (options.sirst, options.sirst_v2)
    first, second = (FolderDataset(root, "train", cache=True) for root in roots)
    model = SeRankDet.from_pretrained(options.init).reconfigured(
        working_size=options.working_size, scale_range=options.scale_range
    )
    with_target = [i for i, sample in enumerate(second) if sample.mask.any()]
    hard = false_alarms(model, second) if options.hard > 1 else []
    more = with_target * (options.repeat - 1) + hard * (options.hard - 1)
    train_set = JoinedSamples([first, second, Chosen(second, more)])
    val_set = JoinedSamples([FolderDataset(root, "val", cache=True) for root in roots])
    recipe = Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.lr,
        clip=2.0,
        loss="soft_iou_area",
        pixel_weight=options.pixel_weight,
        deep_supervision=False,
        average=options.average,
        precision="bfloat16",
        freeze_statistics=True,
        validate_every=options.validate_every,
        seed=options.seed,
        augmentation=Augmentation(
            crop=options.crop, scale=(0.6, 1.5), target_share=0.5, paste=0.5, paste_close=options.paste_close
        ),
    )
    fit(model, train_set, val_set, recipe=recipe, output=options.output, resume=True, progress=True)


if __name__ == "__main__":
    main()
