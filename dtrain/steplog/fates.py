"""Fates: what became of a raw row, in one byte; and how many rows of a range met each.

A fate is a pure function of the row's coordinate, of what the partition holds, of the job's seed and code: that is why rows that
are left out on purpose are counted, and only bad ones are listed.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Fate(IntEnum):
    """What a job does with a raw row."""

    TRAINED = 0
    REJECTED = 1
    """Could not be decoded: listed by coordinate and reason."""
    FILTERED = 2
    """`source.filter` does not hold for it."""
    DUPLICATE = 3
    """Its key was seen shortly before, in its partition."""
    HELD_OUT = 4
    """Never trained, only scored."""


class LeftOut(NamedTuple):
    """How many decoded rows are not trained, by fate."""

    filtered: int = 0
    duplicate: int = 0
    held_out: int = 0

    @classmethod
    def of(cls, fates: bytes, start: int, stop: int) -> LeftOut:
        """Of the raw rows [start, stop) of a block."""
        return cls(*(fates.count(fate, start, stop) for fate in (Fate.FILTERED, Fate.DUPLICATE, Fate.HELD_OUT)))

    def plus(self, other: LeftOut) -> LeftOut:
        """Both together."""
        return LeftOut(*(mine + others for mine, others in zip(self, other, strict=True)))


NONE_LEFT_OUT = LeftOut()

IS_TRAINED = bytes(fate == Fate.TRAINED for fate in range(256))
"""For `bytes.translate`: fate → 1 for a row that is trained."""
