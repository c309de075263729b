"""Cutting: what has arrived becomes steps.

`arrival` takes rows in the order in which their blocks came. `strict` takes a fixed share of every partition in each step: what it
cuts is a function of the topic alone. Both move each partition from one position to the next without a gap (invariant 2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from dtrain.steplog.blocks import BlockMeta, merge, merge_adjoining
from dtrain.steplog.positions import Partition, Position, Positions
from dtrain.steplog.ranges import RowRange

Piece = tuple[int, int, int]
"""(block id, first good row, good row behind the last)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The rows of one step: ranges for the log, pieces for the trainers, in the same order."""

    ranges: tuple[RowRange, ...]
    pieces: tuple[Piece, ...]
    num_rows: int
    newest_ms: int
    exhausted: tuple[int, ...]
    """Blocks of which no row is left."""


@dataclass(slots=True)
class _Waiting:
    """A block of which rows wait."""

    block_id: int
    meta: BlockMeta
    came_s: float
    next_row: int = 0

    @property
    def num_rows(self) -> int:
        return self.meta.num_rows - self.next_row


class Cutter:
    """Blocks in, cuts out. Pure: it is told the time, and only that.

    Args:
        positions: where the next cut starts, per partition.
        ends: where each partition ends; None for never.
        rows: rows of a full step.
        max_wait_s: longest wait of a row before a shorter step is cut; `arrival` only.
        is_strict: see the module.
        step: data steps cut before; `strict` shares rows out by it.
    """

    def __init__(
        self, *, positions: Positions, ends: Positions | None, rows: int, max_wait_s: float, is_strict: bool, step: int
    ) -> None:
        self.positions = dict(positions)
        self._ends = ends
        self._rows = rows
        self._max_wait_s = max_wait_s
        self._is_strict = is_strict
        self._step = step
        self._read_to = dict(positions)
        self._passed: dict[Partition, RowRange] = {}  # behind the position, read, and without good rows
        self._arrived: deque[_Waiting] = deque()  # `arrival` alone: blocks of all partitions, as they came
        self._queues: dict[Partition, deque[_Waiting]] = {partition: deque() for partition in positions}
        self.num_waiting = 0

    @property
    def is_read(self) -> bool:
        """Every partition was read to its end."""
        return all(map(self._is_read, self.positions))

    @property
    def is_finished(self) -> bool:
        """Every partition was read to its end and every good row was cut."""
        return self.num_waiting == 0 and self.is_read

    @property
    def passed(self) -> tuple[RowRange, ...]:
        """What was read behind the positions and has no good rows; `pass_over` moves behind it."""
        return tuple(self._passed[partition] for partition in sorted(self._passed))

    def sated(self, limit_rows: int) -> frozenset[Partition]:
        """`strict` alone: partitions of which enough waits, that is their part of `limit_rows`, while others may have nothing."""
        if not self._is_strict:
            return frozenset()
        rows = self._waiting_rows()
        num_going = sum(1 for p, waiting in rows.items() if waiting or not self._is_read(p))  # they share a step among them
        return frozenset(p for p, waiting in rows.items() if waiting and waiting * num_going >= limit_rows)

    def has_room(self, limit_rows: int) -> bool:
        """Whether more rows are wanted: of all partitions together; in `strict`, of any."""
        if not self._is_strict:
            return self.num_waiting < limit_rows
        return len(self.sated(limit_rows)) < len(self._queues)

    @property
    def read_to(self) -> Positions:
        """Up to where blocks have come, per partition: where a new feed goes on."""
        return dict(self._read_to)

    def add(self, block_id: int, meta: BlockMeta, *, now_s: float) -> None:
        """A block came; per partition they come in order."""
        waiting = _Waiting(block_id, meta, now_s)
        self._read_to[meta.partition] = meta.end
        self._queues[meta.partition].append(waiting)
        self.num_waiting += meta.num_rows
        if meta.num_rows and not self._is_strict:
            self._arrived.append(waiting)
        self._pass_exhausted(meta.partition)

    def cut(self, *, now_s: float) -> Cut | None:
        """The next step, or None while it has to wait for rows."""
        takes = self._takes_strict() if self._is_strict else self._takes_arrival(now_s)
        if not takes:
            return None
        ranges: list[RowRange] = []
        pieces: list[Piece] = []
        newest_ms = 0
        for waiting, num_rows in takes:
            ranges.append(self._take(waiting, num_rows))
            pieces.append((waiting.block_id, waiting.next_row - num_rows, waiting.next_row))
            newest_ms = max(newest_ms, waiting.meta.newest_ms)
        self._step += 1
        return Cut(
            ranges=merge_adjoining(ranges),
            pieces=tuple(pieces),
            num_rows=sum(num_rows for _, num_rows in takes),
            newest_ms=newest_ms,
            exhausted=tuple(waiting.block_id for waiting, _ in takes if waiting.num_rows == 0),
        )

    def pass_over(self) -> tuple[RowRange, ...]:
        """Ranges for a control step: what was read behind the positions and has no good rows. Positions move behind them."""
        ranges = self.passed
        self._passed = {}
        self.positions.update({item.partition: item.end for item in ranges})
        return ranges

    def _is_read(self, partition: Partition) -> bool:
        return self._ends is not None and self._read_to[partition] >= self._ends.get(partition, Position(0))

    def _place(self, partition: Partition) -> Position:
        passed = self._passed.get(partition)
        return passed.end if passed else self.positions[partition]

    def _pass_exhausted(self, partition: Partition) -> None:
        """Drop the blocks at the queue's head that have no good rows left; remember what of them lies behind the position."""
        queue = self._queues[partition]
        while queue and queue[0].num_rows == 0:
            rest = queue.popleft().meta.range_to_end(self._place(partition))
            if rest.start < rest.end:
                passed = self._passed.get(partition)
                self._passed[partition] = merge(passed, rest) if passed else rest

    def _take(self, waiting: _Waiting, num_rows: int) -> RowRange:
        """Move behind the next `num_rows` good rows of a block, the first of its partition's queue."""
        partition = waiting.meta.partition
        taken = waiting.meta.range_to(self._place(partition), waiting.next_row + num_rows)
        passed = self._passed.pop(partition, None)
        waiting.next_row += num_rows
        self.num_waiting -= num_rows
        self.positions[partition] = taken.end
        self._pass_exhausted(partition)
        return merge(passed, taken) if passed else taken

    def _takes_arrival(self, now_s: float) -> list[tuple[_Waiting, int]]:
        while self._arrived and self._arrived[0].num_rows == 0:
            self._arrived.popleft()
        if not self._arrived:
            return []
        is_late = now_s - self._arrived[0].came_s >= self._max_wait_s
        if self.num_waiting < self._rows and not is_late and not self.is_read:
            return []
        return _take_from(self._arrived, self._rows)

    def _takes_strict(self) -> list[tuple[_Waiting, int]]:
        rows = self._waiting_rows()
        if self._is_short(rows):
            return []
        shares = _shares(_active(rows), rows=self._rows, step=self._step)
        return [take for p, share in shares.items() for take in _take_from(self._queues[p], share)]

    def _waiting_rows(self) -> dict[Partition, int]:
        return {partition: sum(w.num_rows for w in queue) for partition, queue in self._queues.items()}

    def _is_short(self, rows: Mapping[Partition, int]) -> bool:
        """Whether a partition that goes on has nothing, or less than its share."""
        if any(rows[partition] == 0 and not self._is_read(partition) for partition in rows):
            return True
        shares = _shares(_active(rows), rows=self._rows, step=self._step)
        return any(rows[p] < share and not self._is_read(p) for p, share in shares.items())


def _active(rows: Mapping[Partition, int]) -> list[Partition]:
    return sorted(partition for partition in rows if rows[partition])


def _shares(active: list[Partition], *, rows: int, step: int) -> Mapping[Partition, int]:
    """Rows of each partition in a step; what does not divide goes round with the steps."""
    if not active:
        return {}
    base, rest = divmod(rows, len(active))
    return {p: base + ((i + step) % len(active) < rest) for i, p in enumerate(active)}


def _take_from(queue: deque[_Waiting], num_rows: int) -> list[tuple[_Waiting, int]]:
    """The blocks of `queue`, first to last, and how many rows of each make `num_rows` or all there are."""
    takes = []
    for waiting in queue:
        if num_rows == 0:
            break
        take = min(num_rows, waiting.num_rows)
        if take:
            takes.append((waiting, take))
        num_rows -= take
    return takes
