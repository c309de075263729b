"""Spans: rows that are cut at once and trained in an order drawn anew, in parts; each part is a data step.

Part 0 carries the span's ranges, so that positions move over the whole span with it. What is not trained then is the *open span*,
until the last part is applied. The order is a permutation that `data/permutation.py` makes of what a part names, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dtrain.errors import InternalError
from dtrain.steplog.ranges import RowRange


@dataclass(frozen=True, slots=True)
class Part:
    """Which rows of a span a data step trains: as many as it has, from place `start` of the permutation on.

    All that the permutation depends on is here, so that a job file that was changed since changes no span that is open.

    Args:
        seed: the job's.
        opened: number of the data step that opened the span.
        span_rows: rows of the span, >= 1.
        start: rows of it that were trained before; 0 for the part that opens it.
    """

    seed: int
    opened: int
    span_rows: int
    start: int = 0

    @property
    def num_left(self) -> int:
        """Rows of the span from this part on."""
        return self.span_rows - self.start

    def after(self, num_rows: int) -> Part | None:
        """The part behind `num_rows` rows of this one; None where the span ends with them."""
        return replace(self, start=self.start + num_rows) if num_rows < self.num_left else None

    def to_json(self) -> list[int]:
        """The part as a compact JSON list."""
        return [self.seed, self.opened, self.span_rows, self.start]

    @classmethod
    def from_json(cls, value: list[int]) -> Part:
        """The part that `to_json` wrote."""
        return cls(*value)


@dataclass(frozen=True, slots=True)
class OpenSpan:
    """Rows that positions have passed and that are not in the weights yet.

    Args:
        ranges: of the whole span, without their rejects, which its first entry lists.
        part: the next one.
    """

    ranges: tuple[RowRange, ...]
    part: Part

    @property
    def num_left(self) -> int:
        """Rows that are not trained yet."""
        return self.part.num_left

    def num_steps(self, rows: int) -> int:
        """Data steps of `rows` rows that it takes to the end of the span."""
        return -(-self.num_left // rows)

    def to_json(self) -> dict[str, Any]:
        """The span as a manifest keeps it."""
        return {"ranges": [item.to_json() for item in self.ranges], "part": self.part.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> OpenSpan:
        """The span that `to_json` wrote."""
        return cls(tuple(map(RowRange.from_json, value["ranges"])), Part.from_json(value["part"]))


def span_after(
    span: OpenSpan | None, part: Part | None, *, ranges: Iterable[RowRange], num_rows: int, step: int
) -> OpenSpan | None:
    """The span that is open behind a data step.

    Args:
        span: that was open before it.
        part: which the step trains; None for one that takes its rows as they came.
        ranges: that it carries.
        num_rows: that it trains.
        step: its number among the data steps.

    Raises:
        InternalError: it is not what must follow: rows would be lost or trained twice.
    """
    if span is None and part is None:
        return None
    carried = tuple(replace(item, rejects=()) for item in ranges)
    expected = span.part if span is not None else part and replace(part, opened=step, start=0)
    has_all = span is not None or (part is not None and sum(item.num_rows for item in carried) == part.span_rows)
    is_next = part == expected and (not carried or span is None) and has_all
    if part is None or not is_next or not 0 < num_rows <= part.num_left:
        raise InternalError(f"data step {step} trains {num_rows} rows of {part}, but {expected} is next")
    following = part.after(num_rows)
    return OpenSpan(span.ranges if span is not None else carried, following) if following is not None else None
