"""Data sets: folders, published splits, NoisySIRST, the SIRST-AUG recipe, synthetic scenes; reports and writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from serank.datasets.box_folder import BoxFolder, BoxSample
from serank.datasets.describe import describe_folder
from serank.datasets.folder import FolderDataset, check_overlap, warn_overlap
from serank.datasets.joined import JoinedSamples
from serank.datasets.labels import ImportReport, import_labels, read_boxes
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
from serank.datasets.splitting import FolderSplit, split_folder
from serank.datasets.statistics import grey_statistics
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
    "SyntheticScenes",
    "available_splits",
    "check_overlap",
    "describe_folder",
    "grey_statistics",
    "identify_split",
    "import_labels",
    "pretraining_scenes",
    "read_boxes",
    "sirst_aug",
    "sirst_test_names",
    "split_folder",
    "split_names",
    "warn_overlap",
    "warn_sirst_test_names",
    "write_folder",
]

if TYPE_CHECKING:
    from serank.synthetic import SyntheticScenes, pretraining_scenes
else:
    # serank.synthetic needs Sample from here, and scipy.ndimage, which is slow to import
    def __getattr__(name: str) -> Any:
        if name in ("SyntheticScenes", "pretraining_scenes"):
            from serank import synthetic

            return getattr(synthetic, name)
        raise AttributeError(f"module 'serank.datasets' has no attribute {name!r}")
