"""`serank demo`: what it finds in a file, and the page itself in a headless Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from serank import SeRankDet
from serank.cli.entry import main
from serank.demo import COLUMNS, Analyst, count_frames
from serank.errors import FrameError

ROOT = Path(__file__).parents[1]
SKY = ROOT / "examples" / "frames" / "sky_256x256.png"
WAIT = 60  # seconds; a busy machine, or the first look at a network
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver")

T = TypeVar("T")


@pytest.fixture
def analyst(tmp_path: Path) -> Analyst:
    (tmp_path / "results").mkdir()
    return Analyst(["sirst"], tmp_path / "results")


def test_a_finding_is_what_detect_finds(analyst: Analyst) -> None:
    expected = SeRankDet.from_pretrained("sirst").detect(SKY, 0.6)
    found = analyst.find(str(SKY), 0, "sirst", threshold=0.6)
    record = json.loads(Path(found.table).read_text())
    assert len(expected) == 2
    assert {k: record[k] for k in expected.to_dict()} == expected.to_dict()
    assert (record["file"], record["index"], record["checkpoint"]) == (SKY.name, None, "sirst")
    assert [row[:4] for row in found.rows] == [
        [f"{x:.1f}", f"{y:.1f}", f"{score:.3f}", f"{area}"]
        for (x, y), score, area in zip(expected.centroids, expected.scores, expected.areas, strict=True)
    ]
    where = f"{SKY.name}: 2 detections in 256 x 256 px with probability above 0.60"
    assert found.summary == f"{where}; score p: how often such detections are true (calibrated)"
    with Image.open(found.probability) as picture:
        np.testing.assert_allclose(np.asarray(picture) / 255, expected.probability, atol=0.01)
    with Image.open(found.picture) as picture:
        assert min(picture.size) >= 256


def test_options_of_detect_and_its_warnings(analyst: Analyst, tmp_path: Path) -> None:
    with Image.open(SKY) as sky:
        grey = np.asarray(sky.convert("L"))
    Image.fromarray(255 - grey).save(tmp_path / "dark.png")
    assert analyst.find(str(tmp_path / "dark.png"), 0, "sirst").rows == []
    assert len(analyst.find(str(tmp_path / "dark.png"), 0, "sirst", polarity="black-hot", tta=4).rows) == 2
    Image.new("L", (64, 48)).save(tmp_path / "constant.png")
    summary = analyst.find(str(tmp_path / "constant.png"), 0, "sirst").summary
    assert re.search(r"\n\n\*\*Warning:\*\* .* constant, nothing can be found", summary)
    assert analyst.settings("sirst") == (0.5, 1)


def test_pages_of_a_file_are_found_by_number(analyst: Analyst, tmp_path: Path) -> None:
    with Image.open(SKY) as sky:
        pages = [Image.new("L", (64, 48)), sky.convert("L")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    file = str(tmp_path / "pages.tif")
    assert count_frames(file) == 2
    assert analyst.find(file, 0, "sirst").rows == []
    second = analyst.find(file, 1, "sirst")
    assert len(second.rows) == 2
    assert second.summary.startswith("pages.tif, frame 1: 2 detections in 256 x 256 px")
    with pytest.raises(FrameError, match=r"^pages\.tif: no frame 2; frames are counted from 0$"):
        analyst.find(file, 2, "sirst")


def test_a_file_that_is_no_frame_is_named_without_its_folder(analyst: Analyst, tmp_path: Path) -> None:
    (tmp_path / "garbage.png").write_bytes(b"nothing of the kind")
    for look in (count_frames, lambda file: analyst.find(file, 0, "sirst")):
        with pytest.raises(FrameError, match=r"^garbage\.png: "):
            look(str(tmp_path / "garbage.png"))


def test_the_command_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--device", "nowhere"]) == 1
    assert "device 'nowhere' is not available here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "serank demo: the page needs Gradio; pip install 'serank[demo]'\n"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a page that is served until the test ends."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "serank", "demo"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as served:
        assert served.stdout is not None
        line = served.stdout.readline()
        try:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)\n", line), line or served.communicate()[1]
            yield line.split()[0]
        finally:
            served.send_signal(signal.SIGTERM)
            _, errors = served.communicate(timeout=WAIT)
    assert (served.returncode, errors) == (0, "serank demo: ended\n")
    assert list(tmp_path.glob("serank-demo-*")) == []  # uploads are gone


@pytest.fixture
def page(address: str, tmp_path: Path) -> Iterator[Chrome]:
    options = ChromeOptions()
    assert BROWSER
    options.binary_location = BROWSER
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,1000"),
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    try:
        driver.get(address)
        yield driver
    finally:
        driver.quit()


def wait(page: Chrome, seen: Callable[[Chrome], T]) -> T:
    """What `seen` gives once that is true; it looks again where the page has just replaced an element."""
    found: T = WebDriverWait(page, WAIT, ignored_exceptions=(Exception,)).until(seen)
    return found


def text(page: Chrome, name: str) -> str:
    return page.find_element(By.ID, name).text


def rows(page: Chrome) -> list[list[str]]:
    """The table's cells, without its heads."""
    lines = text(page, "table").split("\n")
    cells = lines[lines.index(COLUMNS[-1]) + 1 :]
    return [cells[i : i + len(COLUMNS)] for i in range(0, len(cells), len(COLUMNS))]


def upload(page: Chrome, file: Path) -> None:
    for button in page.find_elements(
        By.CSS_SELECTOR, "#file button[aria-label*='Remove'], #file button[aria-label='Clear']"
    ):
        button.click()
    wait(page, lambda p: p.find_element(By.CSS_SELECTOR, "#file input[type=file]")).send_keys(str(file))


@browser
@pytest.mark.browser
@pytest.mark.skipif(sys.platform == "win32", reason="ends the command by SIGTERM")
def test_the_page_in_a_browser(page: Chrome, address: str, tmp_path: Path) -> None:
    expected = SeRankDet.from_pretrained("general").detect(SKY)
    wait(page, lambda p: text(p, "summary") == "No frame yet.")

    upload(page, SKY)
    wait(page, lambda p: "2 detections" in text(p, "summary"))
    table = wait(page, rows)
    assert [row[:4] for row in table] == [
        [f"{x:.1f}", f"{y:.1f}", f"{score:.3f}", f"{area}"]
        for (x, y), score, area in zip(expected.centroids, expected.scores, expected.areas, strict=True)
    ]
    assert wait(page, lambda p: p.find_element(By.CSS_SELECTOR, "#picture img").get_attribute("naturalWidth")) != "0"

    wait(page, lambda p: p.find_element(By.ID, "json").is_enabled())
    page.find_element(By.ID, "json").click()
    (file,) = wait(page, lambda _: list((tmp_path / "downloads").glob("*.json")))
    assert json.loads(file.read_text())["detections"] == expected.to_dict()["detections"]

    page.find_element(By.CSS_SELECTOR, "#polarity label:nth-of-type(2) input").click()  # dark
    wait(page, lambda p: "0 detections" in text(p, "summary"))
    page.find_element(By.CSS_SELECTOR, "#polarity label:nth-of-type(1) input").click()
    wait(page, lambda p: "2 detections" in text(p, "summary"))

    number = page.find_element(By.CSS_SELECTOR, "#threshold input[type=number]")
    number.send_keys(Keys.CONTROL, "a")
    number.send_keys("1", Keys.TAB)  # no pixel is above it
    wait(page, lambda p: "0 detections" in text(p, "summary") and "above 1.00" in text(p, "summary"))
    wait(page, lambda p: not rows(p))

    (tmp_path / "garbage.png").write_bytes(b"nothing of the kind")
    upload(page, tmp_path / "garbage.png")
    message = wait(page, lambda p: text(p, "summary") if "Error" in text(p, "summary") else "")
    assert message.startswith("Error: garbage.png: ")
    assert str(tmp_path) not in message

    loaded = page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded
    assert [name for name in loaded if not name.startswith((address, "blob:", "data:"))] == []
