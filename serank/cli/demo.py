"""`serank demo`."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress

DETAILS = (
    "Drop a frame or a video and see boxes, probability and table; change checkpoint, threshold, polarity and others; "
    "download picture and table. "
    "Only this machine reaches the page, and nothing leaves it. Needs the extra serank[demo]."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        metavar="NAME",
        help="bundled names, folders or Hub repository ids to choose from (default: all bundled ones, `general` first)",
    )
    parser.add_argument("--device", default="auto", help="where to run: auto (CUDA where there is one), cpu, cuda")
    parser.add_argument("--port", type=int, metavar="N", help="of the page (default: the first free one from 7860 on)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")


def run(options: argparse.Namespace) -> int:
    from serank.checkpoints.folder import bundled
    from serank.demo.page import serve
    from serank.utils.checks import check_device, choose_device

    def announce(address: str) -> None:
        print(f"{address} (Ctrl-C ends it)", flush=True)

    if options.port is not None and not 1 <= options.port <= 65535:
        raise ValueError(f"--port must lie in 1 to 65535; got {options.port}")
    device = str(check_device(choose_device(options.device)))
    with suppress(KeyboardInterrupt):
        serve(
            options.checkpoint or sorted(bundled()),
            device=device,
            port=options.port,
            browser=options.open,
            announce=announce,
        )
    print("serank demo: ended", file=sys.stderr)
    return 0
