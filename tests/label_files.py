"""Small data sets with one target in each frame, labelled in the formats that `serank import` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 40, 64
TARGET = (slice(10, 14), slice(20, 26))
"""Rows and columns of the bright target in every frame."""
BOX = (20, 10, 26, 14)


def frame(path: Path, level: int = 200, mode: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels: NDArray[Any] = np.full((HEIGHT, WIDTH), 60, mode)
    pixels[TARGET] = level
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def truth() -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[TARGET] = True
    return mask


def coco(**changes: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [20, 10, 6, 4]} | changes
    return {
        "images": [
            {"id": 5, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
            {"id": 6, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [{key: value for key, value in annotation.items() if value is not None}],
        "categories": [{"id": 3, "name": "drone"}, {"id": 4, "name": "bird"}],
    }


def coco_folder(root: Path, **changes: Any) -> Path:
    for name in "ab":
        frame(root / "images" / f"{name}.png")
    write(root / "annotations" / "instances_train.json", coco(**changes))
    return root


def voc_xml(**sides: Any) -> str:
    box = {"xmin": 21, "ymin": 11, "xmax": 26, "ymax": 14} | sides
    inner = "".join(f"<{side}>{value}</{side}>" for side, value in box.items() if value is not None)
    return (
        f"<annotation><filename>a.png</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        f"<object><name>drone</name><bndbox>{inner}</bndbox></object></annotation>"
    )


def yolo_line(x0: float = 20, y0: float = 10, x1: float = 26, y1: float = 14, kind: int = 0) -> str:
    x, y, w, h = (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT
    return f"{kind} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n"


def yolo_folder(root: Path, line: str | None = None) -> Path:
    for split, name in (("train", "a"), ("val", "b"), ("val", "c")):
        frame(root / "images" / split / f"{name}.png")
    write(root / "labels" / "train" / "a.txt", yolo_line() if line is None else line)
    write(root / "labels" / "val" / "b.txt", yolo_line())
    write(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: {0: drone, 1: bird}\n")
    return root


def voc_folder(root: Path, xml: str | None = None) -> Path:
    frame(root / "JPEGImages" / "a.png")
    write(root / "Annotations" / "a.xml", voc_xml() if xml is None else xml)
    write(root / "ImageSets" / "Main" / "val.txt", "a\n")
    write(root / "ImageSets" / "Main" / "trainval.txt", "a\n")
    return root


def labelme(kind: str, points: list[list[float]]) -> dict[str, Any]:
    shape = {"label": "drone", "shape_type": kind, "points": points}
    return {"shapes": [shape], "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
