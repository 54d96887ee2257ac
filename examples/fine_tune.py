"""Fine-tuning the bundled checkpoint, end to end, on twenty frames.

    python examples/fine_tune.py                      # on synthetic frames that the checkpoint does badly on
    python examples/fine_tune.py path/to/my_frames    # on your folder with images/, masks/, train.txt and val.txt

Prints the metrics before and after on the validation frames, and detects with the result.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from serank import SeRankDet
from serank.datasets import FolderDataset, write_folder
from serank.evaluation import evaluate
from serank.synthetic import SyntheticScenes
from serank.train import fit, preset


def make_frames(folder: Path) -> None:
    """Twenty frames to train on and ten to validate on: dim targets of a few pixels in noise."""
    scenes = SyntheticScenes(30, 96, 128, targets=(1, 2), size=(1.5, 3), scr=(3, 6), noise=0.03, seed=1)
    write_folder(scenes, folder)
    names = [scene.name for scene in scenes]
    (folder / "train.txt").write_text("\n".join(names[:20]) + "\n")
    (folder / "val.txt").write_text("\n".join(names[20:]) + "\n")


def metrics(model: SeRankDet, dataset: FolderDataset) -> str:
    """IoU, nIoU, Pd and Fa in one line."""
    m = evaluate(model, dataset, curves=False).metrics
    return f"IoU {m['iou']:.3f}  nIoU {m['niou']:.3f}  Pd {m['pd']:.3f}  Fa {m['fa'] * 1e6:.1f}e-6"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", help="folder of frames and masks (default: synthetic ones)")
    parser.add_argument("--output", default="runs/fine-tuned", help="folder of the run")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(options.root) if options.root else Path(temporary) / "frames"
        if not options.root:
            make_frames(root)
        train_set = FolderDataset(root, "train", cache=True)
        val_set = FolderDataset(root, "val", cache=True)

        model = SeRankDet.from_pretrained("general")
        print(f"before: {metrics(model, val_set)}")
        recipe = preset("finetune").recipe
        crops = replace(recipe.augmentation, crop=128)  # of hundreds of frames larger ones, and batches of 8
        recipe = replace(recipe, epochs=options.epochs, batch_size=4, ema_decay=0.95, augmentation=crops)
        fit(model, train_set, val_set, recipe=recipe, output=options.output, resume=options.resume)

        model = SeRankDet.from_pretrained(f"{options.output}/best")
        print(f"after:  {metrics(model, val_set)}")
        found = model.detect(val_set[0].frame)
        found.save(f"{options.output}/first_frame.png")
        print(f"{len(found)} detections in {val_set[0].name}, drawn in {options.output}/first_frame.png")


if __name__ == "__main__":
    main()
