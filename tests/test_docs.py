"""The site builds strictly, with nothing loaded from elsewhere; figures, gallery and names are current."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import serank

ROOT = Path(__file__).parents[1]


def script(name: str, output: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, ROOT / "docs" / name, "--output", output], check=True, env=environment)


def gallery() -> list[str]:
    """Names of the pictures that the gallery page shows."""
    return re.findall(r"\(gallery/(\S+?)\)", (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8"))


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for name in ("serank", "CHANGELOG.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs" / "gallery").mkdir(exist_ok=True)
    for name in gallery():  # the pictures themselves take longer
        Image.new("L", (8, 8)).save(tmp_path / "docs" / "gallery" / name)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+stylesheet[^>]+https?:", text), page
    assert "serank.metrics.DetectionMetrics" in (tmp_path / "site" / "api" / "evaluate" / "index.html").read_text(
        encoding="utf-8"
    )


def test_the_figures_are_those_of_their_script(tmp_path: Path) -> None:
    script("make_figures.py", tmp_path)
    names = sorted(path.name for path in (ROOT / "docs" / "figures").iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (ROOT / "docs" / "figures" / name).read_bytes()


@pytest.mark.slow
def test_the_gallery_has_the_pictures_that_its_page_shows(tmp_path: Path) -> None:
    script("make_gallery.py", tmp_path)
    assert sorted(gallery()) == sorted(path.name for path in tmp_path.iterdir())


def test_the_api_pages_list_what_is_public() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "api").glob("*.md")))
    blocks = re.findall(r"::: (serank\.[a-z]\w+)\n.*members: \[(.*)\]", pages)
    public = json.loads((ROOT / "tests" / "data" / "public_names.json").read_text(encoding="utf-8"))
    assert sorted(blocks) == sorted(
        (module, ", ".join(names)) for module, names in public.items() if module != "serank"
    )


PACKAGES = ("datasets", "evaluation", "frames", "inference", "metrics", "synthetic", "train")
TEXTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "serank" / "weights").glob("*/README.md")]


def exists(name: str, public: dict[str, object]) -> bool:
    """Whether a dotted name is a module or attribute of the package, or one of a public name."""
    first, *rest = name.split(".")
    found = public[first]
    for part in rest:
        if isinstance(found, ModuleType) and not hasattr(found, part) and find_spec(f"{found.__name__}.{part}"):
            found = import_module(f"{found.__name__}.{part}")
        elif hasattr(found, part):
            found = getattr(found, part)
        else:
            return part in getattr(found, "__dataclass_fields__", {})  # those without a default are no attribute
    return True


def test_the_names_in_the_pages_exist() -> None:
    public: dict[str, object] = {"serank": serank}
    for module in (serank, *(import_module(f"serank.{name}") for name in PACKAGES)):
        public |= {name: getattr(module, name) for name in module.__all__}
    named, lost = 0, []
    for page in TEXTS:
        if page.name == "migration.md":  # which names what is gone
            continue
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for name in re.findall(r"`([A-Za-z_]\w*(?:\.\w+)+)[`(]", text):
            if name.split(".")[0] in public and name != "serank.json":  # a file
                named += 1
                lost += [] if exists(name, public) else [f"{page.name}: {name}"]
    assert not lost
    assert named > 20
