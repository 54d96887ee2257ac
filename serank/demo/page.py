"""The page of `serank demo`, in Gradio: served on this machine alone, with nothing loaded from elsewhere."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from serank.demo.analysis import COLUMNS, MAX_FRAMES, Analyst, Finding, count_frames
from serank.frames.reading import FRAME_SUFFIXES, VIDEO_SUFFIXES

if TYPE_CHECKING:
    from gradio import Blocks

HOST = "127.0.0.1"
"""This machine alone: uploads are read by whoever reaches the page."""

POLL_SECONDS = 0.2
NO_PALETTE = "no"
"""Stands for `palette=None`, which a control would take as nothing chosen."""

INTRODUCTION = (
    "Drop an infrared frame (any bit depth; PNG, TIFF, JPEG, NPY and others) or a video. It stays on this machine. "
    f"Videos and TIFF files of several pages show one frame at a time, the first {MAX_FRAMES} at most; "
    "`serank detect FILE` goes through all of them."
)
EXPECTED = (ValueError, OSError, RuntimeError, ImportError)
"""What a file or an option can be at fault for; `serank.errors.FrameError` is a ValueError."""


def build_page(analyst: Analyst) -> Blocks:
    """The page, not yet served.

    Args:
        analyst: with at least one checkpoint; the first one is chosen at the start.

    Raises:
        ImportError: Gradio is missing; names the extra, `serank[demo]`.
    """
    gr = _gradio()
    threshold, tta = analyst.settings(analyst.checkpoints[0])
    with gr.Blocks(title="serank", analytics_enabled=False) as page:
        file, frame, checkpoint, options, outputs = _lay_out(gr, analyst.checkpoints, threshold, tta)
        inputs = [file, frame, checkpoint, *options.values()]

        def show(path: str | None, index: float, name: str, *values: Any) -> list[Any]:
            if path is None:
                return _shown(gr, "No frame yet.")
            chosen = dict(zip(options, values, strict=True))
            chosen["palette"] = None if chosen["palette"] == NO_PALETTE else chosen["palette"]
            try:
                found = analyst.find(path, int(index), name, **chosen)
            except EXPECTED as error:
                return _shown(gr, f"**Error:** {error}")
            return _shown(gr, found.summary, found)

        def opened(path: str | None) -> Any:
            """The slider of frames for a new file, hidden where there is but one; `show` says what is wrong."""
            try:
                count = 0 if path is None else count_frames(path)
            except EXPECTED:
                count = 0
            return gr.Slider(maximum=max(1, count - 1), value=0, visible=count > 1)

        # one at a time: several would share the network's cores
        shared = {"concurrency_limit": 1, "concurrency_id": "network", "api_visibility": "private"}
        file.change(opened, file, frame, **shared).then(show, inputs, outputs, **shared)
        checkpoint.input(analyst.settings, checkpoint, [options["threshold"], options["tta"]], **shared).then(
            show, inputs, outputs, **shared
        )
        for control in (frame, *options.values()):
            # while a slider is dragged the network takes its latest value whenever it is done with the one before
            control.input(show, inputs, outputs, trigger_mode="always_last", **shared)
    return cast("Blocks", page)


class _Controls(NamedTuple):
    """What the page is made of, as far as it does something."""

    file: Any
    frame: Any
    checkpoint: Any
    options: dict[str, Any]
    """Keyword of `SeRankDet.detect` -> its control."""
    outputs: list[Any]
    """Of `_shown`, in its order."""


def _lay_out(gr: Any, checkpoints: Sequence[str], threshold: float, tta: int) -> _Controls:
    """Puts the controls on the page that is being built; the last two are settings of the first checkpoint."""
    gr.Markdown(f"# serank\n{INTRODUCTION}")
    with gr.Row():
        with gr.Column(scale=1):
            file = gr.File(
                label="Frame or video",
                file_types=sorted(FRAME_SUFFIXES | VIDEO_SUFFIXES),
                elem_id="file",
                height=120,
            )
            frame = gr.Slider(0, 1, 0, step=1, label="Frame", visible=False, elem_id="frame")
            checkpoint = gr.Dropdown(list(checkpoints), value=checkpoints[0], label="Checkpoint", elem_id="checkpoint")
            # another option of `SeRankDet.detect` is another line here
            options: dict[str, Any] = {
                "threshold": gr.Slider(
                    0, 1, threshold, step=0.01, label="Threshold (probability)", elem_id="threshold"
                ),
                "min_area": gr.Number(1, label="Smallest detection, px", minimum=1, precision=0, elem_id="min-area"),
                "polarity": gr.Radio(
                    [("bright", "white-hot"), ("dark", "black-hot")],
                    value="white-hot",
                    label="Hot is",
                    elem_id="polarity",
                ),
                "palette": gr.Radio(
                    [("no", NO_PALETTE), ("yes, undo it", "auto")],
                    value=NO_PALETTE,
                    label="False colour",
                    elem_id="palette",
                ),
                "tta": gr.Radio(
                    [("none", 1), ("4 flips", 4), ("8 flips, turns", 8)],
                    value=tta,
                    label="Test-time augmentation (4 and 8 times the cost)",
                    elem_id="tta",
                ),
            }
        with gr.Column(scale=3):
            summary = gr.Markdown("No frame yet.", elem_id="summary")
            with gr.Tab("Detections"):
                picture = gr.Image(label="Boxes", interactive=False, elem_id="picture", buttons=["fullscreen"])
            with gr.Tab("Probability"):
                probability = gr.Image(
                    label="Black 0, white 1", interactive=False, elem_id="probability", buttons=["fullscreen"]
                )
            rows = gr.Dataframe(headers=list(COLUMNS), interactive=False, label="Detections", elem_id="table")
            with gr.Row():
                save_table = gr.DownloadButton("Download JSON", interactive=False, elem_id="json")
                save_picture = gr.DownloadButton("Download picture", interactive=False, elem_id="png")
    return _Controls(file, frame, checkpoint, options, [summary, rows, picture, probability, save_table, save_picture])


def _shown(gr: Any, summary: str, found: Finding | None = None) -> list[Any]:
    """The page's outputs, empty where nothing was found out."""
    if found is None:
        return [summary, [], None, None, gr.DownloadButton(interactive=False), gr.DownloadButton(interactive=False)]
    return [
        summary,
        found.rows,
        found.picture,
        found.probability,
        gr.DownloadButton(value=found.table, interactive=True),
        gr.DownloadButton(value=found.picture, interactive=True),
    ]


def serve(
    checkpoints: list[str],
    *,
    device: str = "cpu",
    port: int | None = None,
    browser: bool = False,
    announce: Callable[[str], None],
) -> None:
    """Serves the page on `HOST` until a KeyboardInterrupt, which it passes on; uploads and results are deleted then.

    Args:
        checkpoints: names, folders or Hub ids; the first one is chosen at the start.
        device: where to run.
        port: `None` takes the first free one from 7860 on.
        browser: open the page there.
        announce: is called with the page's address once it is served.

    Raises:
        ImportError: Gradio is missing; names the extra, `serank[demo]`.
        OSError: the port is taken.
        serank.errors.CheckpointError: the first checkpoint can't be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="serank-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        results = Path(folder) / "results"
        results.mkdir()
        page = build_page(Analyst(checkpoints, results, device))
        _, address, _ = page.launch(
            server_name=HOST,
            server_port=port,
            inbrowser=browser,
            share=False,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            prevent_thread_lock=True,
        )
        try:
            announce(address)
            while page.is_running:
                time.sleep(POLL_SECONDS)
        finally:
            page.close(verbose=False)


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
    try:
        import gradio
    except ImportError as error:
        raise ImportError("the page needs Gradio; pip install 'serank[demo]'") from error
    return gradio
