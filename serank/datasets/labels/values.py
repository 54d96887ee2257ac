"""Files and values of label files, checked: each error names file, entry, value, what was expected and the fix."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from serank.datasets.labels.objects import Box
from serank.utils.files import text_file

T = TypeVar("T")


def shown(value: object) -> str:
    """A value for a message, short: a container is named by its kind, since a hostile file can make it endless."""
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def json_file(file: Path) -> dict[str, Any]:
    """Content of a JSON file that holds an object; raises as `json_value`, and ValueError for anything else."""
    content = json_value(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {shown(content)}, expected a JSON object")
    return content


def json_value(file: Path) -> Any:
    """Content of a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, or not JSON.
    """
    text = text_file(file)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {error.lineno}: is not JSON ({error.msg}); export it again from the labelling tool"
        ) from None
    except RecursionError:
        raise ValueError(f"{file}: is nested too deeply for a label file") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{file}: can't be read ({error}); export it again from the labelling tool") from None


def entry(value: object, kind: type[T], where: str, what: str) -> T:
    """`value` if it is of `kind`, bool being no number; raises ValueError otherwise."""
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise ValueError(
        f"{where}: {what} is {shown(value)}, expected {_KINDS.get(kind, kind.__name__)}; correct the entry"
    )


_KINDS: dict[type, str] = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


def member(record: dict[str, Any], key: str, kind: type[T], where: str) -> T:
    """Entry `key` of a record; raises ValueError where it is missing or of another kind."""
    if key not in record:
        raise ValueError(f"{where}: lacks {key!r}; add it, or export the labels again")
    return entry(record[key], kind, where, repr(key))


def number(value: object, where: str, what: str) -> float:
    """A finite number, also written as text; raises ValueError otherwise."""
    try:
        found = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{where}: {what} is {shown(value)}, expected a finite number; correct the entry")
    return found


def xyxy_box(values: Sequence[object], where: str, names: Sequence[str] = ("x0", "y0", "x1", "y1")) -> Box:
    """A box of its four sides, of which the second pair must be the larger."""
    x0, y0, x1, y1 = (number(value, where, name) for value, name in zip(values, names, strict=True))
    for low, high, first, second in ((x0, x1, names[0], names[2]), (y0, y1, names[1], names[3])):
        if high <= low:
            raise ValueError(
                f"{where}: {second} {high:g} must be larger than {first} {low:g}; correct or remove the box"
            )
    return Box(x0, y0, x1, y1)


def xywh_box(values: Sequence[object], where: str) -> Box:
    """A box of x, y, width and height, sides above 0."""
    x, y, width, height = (number(v, where, n) for v, n in zip(values, ("x", "y", "width", "height"), strict=True))
    for side, name in ((width, "width"), (height, "height")):
        if side <= 0:
            raise ValueError(f"{where}: {name} of the box is {side:g}, expected more than 0; correct or remove the box")
    return Box(x, y, x + width, y + height)
