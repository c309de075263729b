"""Poison: a step that kills whoever computes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.spans import OpenSpan, Part

TRIES = 3
"""Deaths inside the same rows, in as many generations, after which these rows are to blame."""

Generation = tuple[int, int]


@dataclass(frozen=True, slots=True)
class AtRisk:
    """The rows that somebody may have died in.

    Args:
        ranges: that they are of.
        part: of the span whose ranges these are, the last that it can have been; None where rows are not shuffled.
    """

    ranges: tuple[RowRange, ...] = ()
    part: Part | None = None

    def is_behind(self, progress: Progress) -> bool:
        """Whether a replica at `progress` has survived them: they are trained, or of no partition that is read."""
        positions, span = progress.positions, progress.span
        if any(item.end > positions.get(item.partition, item.end) for item in self.ranges):
            return False
        return span is None or not overlap(self.ranges, span.ranges) or self._is_before(span)

    def _is_before(self, span: OpenSpan) -> bool:
        """Whether this is a part of the very span, and trained. In another span over the same rows they may stand anywhere."""
        if self.part is None or _places(self.ranges) != _places(span.ranges):
            return False
        return replace(self.part, start=span.part.start) == span.part and self.part.start < span.part.start


@dataclass(slots=True)
class Deaths:
    """Where members died. A loss that was not the process's own end (an eviction, a node) is not told here."""

    _seen: list[tuple[Generation, AtRisk]] = field(default_factory=list)

    @property
    def is_careful(self) -> bool:
        """Somebody died lately: find out exactly in which step the next one does."""
        return bool(self._seen)

    def died(self, rows: AtRisk, *, generation: Generation) -> bool:
        """A member died in the step of `rows`; whether that makes it a poison step."""
        self._seen = [(g, r) for g, r in self._seen if overlap(r.ranges, rows.ranges)]  # the others were survived
        if rows.ranges:
            self._seen.append((generation, rows))
        return len({g for g, _ in self._seen}) >= TRIES

    def survived(self, progress: Progress) -> None:
        """Replicas stand at `progress`: what lies behind it is not to blame."""
        self._seen = [(g, r) for g, r in self._seen if not r.is_behind(progress)]


def overlap(some: Iterable[RowRange], others: Iterable[RowRange]) -> bool:
    """Whether a row is in both."""
    mine = list(others)
    return any(a.partition == b.partition and max(a.start, b.start) < min(a.end, b.end) for a in some for b in mine)


def _places(ranges: Iterable[RowRange]) -> list[tuple[object, ...]]:
    """Which rows the ranges are of, and nothing of what became of them."""
    return [(item.partition, item.start, item.end) for item in ranges]
