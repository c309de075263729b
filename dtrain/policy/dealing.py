"""Dealing: what the cutter cuts becomes data steps; a cut each, or, where rows are shuffled, the parts of a span."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dtrain.policy.cutting import Cut, Cutter, Piece
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.spans import OpenSpan, Part


@dataclass(frozen=True, slots=True)
class Dealt:
    """The rows of a data step.

    Args:
        cut: ranges, held-out rows and blocks that are exhausted are the step's; pieces and number of rows are those of the whole span.
        num_rows: that it trains.
        part: of the span; None where the step is all of the cut, in its order.
        at_risk: the ranges that its rows are of.
        is_lost: its rows are gone, and the log has to say so.
    """

    cut: Cut
    num_rows: int
    part: Part | None
    at_risk: tuple[RowRange, ...]
    is_lost: bool = False


class Dealer:
    """Cuts in, data steps out. Pure, as the cutter.

    Args:
        cutter: cuts steps, or spans of them.
        seed: of the order of rows in a span; None: rows are trained as they came.
        span: that is open already: nothing else is dealt before its rows were read again.
    """

    def __init__(self, cutter: Cutter, *, seed: int | None, span: OpenSpan | None) -> None:
        self._cutter = cutter
        self._seed = seed
        self._cut: Cut | None = None  # of the span that is open, as much of it as its next part carries
        self._at_risk = span.ranges if span is not None else ()
        self._part = span.part if span is not None else None
        self._withheld: list[int] = []  # blocks of which no row is left to cut, as long as a part may need one of them
        self._is_lost = False

    @property
    def is_open(self) -> bool:
        """A span has parts that were not dealt."""
        return self._part is not None

    @property
    def is_finished(self) -> bool:
        """Every partition was read to its end and every good row was dealt."""
        return self._part is None and self._cutter.is_finished

    @property
    def missing(self) -> tuple[RowRange, ...]:
        """The ranges of a span that is open and whose rows have to be read again; none where that is not so."""
        return self._at_risk if self._part is not None and self._cut is None else ()

    def reopen(self, pieces: Iterable[Piece], *, exhausted: Iterable[int]) -> None:
        """The rows of the ranges that were `missing` are there: `pieces`, in their order, of blocks that nothing else needs."""
        self._cut = Cut(ranges=(), pieces=tuple(pieces), num_rows=0, newest_ms=0, exhausted=tuple(exhausted))

    def give_up(self) -> None:
        """Rows of the ranges that were `missing` are gone for ever: what is left of the span is not trained."""
        self._is_lost = True
        self.reopen((), exhausted=())

    def withhold(self, blocks: Iterable[int]) -> tuple[int, ...]:
        """Those of `blocks`, of which no row is left to cut, that no coming part needs; the others go with the span's last part."""
        if self._part is None:
            return tuple(blocks)
        self._withheld += blocks
        return ()

    def deal(self, *, now_s: float, may_open: bool = True) -> Dealt | None:
        """The next data step, or None while it has to wait for rows.

        Args:
            now_s: monotonic time.
            may_open: whether something new may be cut; else a span that is open comes to its end, and no more.
        """
        if self._part is None:
            opened = self._cutter.step + 1
            cut = self._cutter.cut(now_s=now_s) if may_open else None
            if cut is None:
                return None
            if self._seed is None:
                return Dealt(cut, cut.num_rows, None, cut.ranges)
            self._cut, self._at_risk = cut, cut.ranges
            self._part = Part(self._seed, opened, cut.num_rows)
        return self._deal_part(self._cut, self._part) if self._cut is not None else None

    def _deal_part(self, cut: Cut, part: Part) -> Dealt:
        num_rows = min(self._cutter.step_rows, part.num_left)
        following = part.after(num_rows)
        if following is None:  # whichever part has the newest row, it is trained for sure with the last one
            step = replace(cut, exhausted=(*cut.exhausted, *self._withheld))
        else:
            step = replace(cut, exhausted=(), newest_ms=0)
        dealt = Dealt(step, num_rows, part, self._at_risk, self._is_lost)
        self._part = following
        self._cut = replace(cut, ranges=(), held_out=()) if following is not None else None
        if following is None:
            self._withheld, self._is_lost = [], False
        return dealt
