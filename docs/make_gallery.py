"""Makes the pictures of the gallery page by running the commands on synthetic frames.

python docs/make_gallery.py [--output docs/gallery]
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from serank.cli import main as serank
from serank.datasets import write_folder
from serank.metrics import component_table, label_components
from serank.synthetic import SyntheticScenes

ROOT = Path(__file__).parents[1]


def run(*arguments: object) -> None:
    """Runs one command of serank; ends this program if it fails."""
    if status := serank([str(argument) for argument in arguments]):
        raise SystemExit(status)


def write_frames(folder: Path) -> None:
    """Sixteen synthetic frames to train on and twelve to validate on, and their targets' centres as a CSV file."""
    scenes = SyntheticScenes(28, 128, 160, targets=(0, 3), size=(2, 6), scr=(3, 20), noise=0.02, seed=3)
    write_folder(scenes, folder)
    names = [scene.name for scene in scenes]
    (folder / "train.txt").write_text("\n".join(names[:16]) + "\n")
    (folder / "val.txt").write_text("\n".join(names[16:]) + "\n")
    rows = ["file,x,y"]
    for scene in scenes:
        centres = component_table(*label_components(scene.mask)).centroids
        rows += [f"{scene.name}.png,{x:.1f},{y:.1f}" for x, y in centres] or [f"{scene.name}.png,,"]
    (folder / "centres.csv").write_text("\n".join(rows) + "\n")


def make(output: Path) -> None:
    """Writes the pictures into `output`, over those of an earlier run."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_frames(work / "frames")
        for picture in (*detect(work), *import_and_train(work), *evaluate(work)):
            shutil.copy(picture, output)


def detect(work: Path) -> Iterator[Path]:
    """Two of the sample frames with their detections."""
    frames = ROOT / "examples" / "frames"
    samples = [frames / "sea_640x512.png", frames / "ground_640x480_16bit.png"]
    run("detect", *samples, "--output", work / "detect", "--quiet")
    yield from (work / "detect").glob("*.png")


def import_and_train(work: Path) -> Iterator[Path]:
    """The sheet of an import, and the curves of a fine-tuning, whose checkpoint the evaluations take."""
    run("import", work / "frames" / "centres.csv", "--output", work / "imported")
    yield work / "imported" / "contact_sheet.png"
    training = ("--epochs", 8, "--batch-size", 4, "--crop", 96, "--lr", "5e-4")
    run("train", work / "frames", "--init", "sirst", *training, "--output", work / "run")
    yield work / "run" / "curves.png"


def evaluate(work: Path) -> Iterator[Path]:
    """Figures of a report by masks, and a frame of one by boxes."""
    tuned = ("--split", "val", "--checkpoint", work / "run" / "best")
    run("evaluate", work / "frames", *tuned, "--output", work / "report")
    pictures = work / "report" / "pictures"
    yield from (pictures / name for name in ("pd_fa.png", "size.png", "misses.png"))
    with (work / "report" / "frames.csv").open(encoding="utf-8", newline="") as file:
        most = max(csv.DictReader(file), key=lambda row: int(row["detected"]))["name"]
    shutil.copy(work / "frames" / "val.txt", work / "imported")
    run("evaluate", work / "imported", *tuned, "--match", "boxes", "--tolerance", 2, "--output", work / "boxes")
    yield (work / "boxes" / "pictures" / "overlays" / f"{most}.png").rename(work / "boxes.png")
    yield sorted(pictures.glob("surface_*.png"))[0].rename(work / "surface.png")
    yield sorted(pictures.glob("top_k_*.png"))[0].rename(work / "top_k.png")


def main() -> None:
    """Reads the command line and makes the pictures."""
    parser = argparse.ArgumentParser(description="Make the gallery's pictures.")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "gallery")
    make(parser.parse_args().output)


if __name__ == "__main__":
    main()
