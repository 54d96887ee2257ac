"""Data sets: folders, published splits, NoisySIRST, the SIRST-AUG recipe; reports and writing."""

from __future__ import annotations

from serank.datasets.describe import describe_folder
from serank.datasets.folder import FolderDataset, check_overlap, warn_overlap
from serank.datasets.joined import JoinedSamples
from serank.datasets.layouts import Layout, Overlap
from serank.datasets.noisy import NoisySIRST
from serank.datasets.report import FolderReport, SizeMismatch
from serank.datasets.sample import Sample
from serank.datasets.sirst_aug import SIRSTAug, sirst_aug
from serank.datasets.splits import (
    available_splits,
    identify_split,
    sirst_test_names,
    split_names,
    warn_sirst_test_names,
)
from serank.datasets.statistics import grey_statistics
from serank.datasets.write import write_folder

__all__ = [
    "FolderDataset",
    "FolderReport",
    "JoinedSamples",
    "Layout",
    "NoisySIRST",
    "Overlap",
    "SIRSTAug",
    "Sample",
    "SizeMismatch",
    "available_splits",
    "check_overlap",
    "describe_folder",
    "grey_statistics",
    "identify_split",
    "sirst_aug",
    "sirst_test_names",
    "split_names",
    "warn_overlap",
    "warn_sirst_test_names",
    "write_folder",
]
