"""Data sets: folders, published splits, NoisySIRST, the SIRST-AUG recipe; reports and writing."""

from __future__ import annotations

from serank.datasets.box_folder import BoxFolder, BoxSample
from serank.datasets.describe import describe_folder
from serank.datasets.folder import FolderDataset, check_overlap, warn_overlap
from serank.datasets.labels import ImportReport, import_labels, read_boxes
from serank.datasets.layouts import Layout, Overlap
from serank.datasets.masks import SizeMismatch
from serank.datasets.recipes import NoisySIRST, SIRSTAug, sirst_aug
from serank.datasets.report import FolderReport
from serank.datasets.sample import JoinedSamples, Sample, grey_statistics
from serank.datasets.splits import (
    available_splits,
    identify_split,
    sirst_test_names,
    split_names,
    warn_sirst_test_names,
)
from serank.datasets.splitting import FolderSplit, split_folder
from serank.datasets.write import write_folder

__all__ = [
    "BoxFolder",
    "BoxSample",
    "FolderDataset",
    "FolderReport",
    "FolderSplit",
    "ImportReport",
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
    "import_labels",
    "read_boxes",
    "sirst_aug",
    "sirst_test_names",
    "split_folder",
    "split_names",
    "warn_overlap",
    "warn_sirst_test_names",
    "write_folder",
]
