"""Which checkpoints there are, and what their cards say; `SeRankDet` loads and saves them."""

from serank.checkpoints.card import Metadata, Result, read_metadata
from serank.checkpoints.folder import bundled, read_card
from serank.checkpoints.registry import Published, published

__all__ = ["Metadata", "Published", "Result", "bundled", "published", "read_card", "read_metadata"]
