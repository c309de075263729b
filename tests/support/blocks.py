"""Block descriptors for tests."""

from __future__ import annotations

from array import array

from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.positions import Partition, Position


def block(partition: Partition, first: int, stop: int, *, newest_ms: int = 0) -> BlockMeta:
    """A block of the records at offsets from `first` to `stop`, one good row each."""
    offsets = array("q", range(first, stop))
    ones = array("q", [1] * len(offsets))
    return BlockMeta(partition, Position(first), Position(stop), offsets, ones, offsets, newest_ms=newest_ms)
