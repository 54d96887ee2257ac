"""A page in the browser that shows what a detector finds, for `serank demo`."""

from serank.demo.analysis import COLUMNS, Analyst, Finding, count_frames
from serank.demo.page import build_page, serve

__all__ = ["COLUMNS", "Analyst", "Finding", "build_page", "count_frames", "serve"]
