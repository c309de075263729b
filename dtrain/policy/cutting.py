"""Cutting: what has arrived becomes steps.

`arrival` takes rows in the order in which their blocks came. `strict` takes a fixed share of every partition in each step: what it
cuts is a function of the topic alone. Both move each partition from one position to the next without a gap (invariant 2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dtrain.policy.blocking import MOST_REJECTS, weight_bytes
from dtrain.steplog.blocks import BlockMeta, merge, merge_adjoining
from dtrain.steplog.moves import Move, moved
from dtrain.steplog.positions import Mark, Partition, Position, Positions
from dtrain.steplog.ranges import RowRange

Piece = tuple[int, int, int]
"""(block id, first row of its batch, row behind the last)."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The rows of one step: ranges for the log, pieces for the trainers, in the same order."""

    ranges: tuple[RowRange, ...]
    pieces: tuple[Piece, ...]
    num_rows: int
    newest_ms: int
    exhausted: tuple[int, ...]
    """Blocks of which no row is left."""
    held_out: tuple[Piece, ...] = ()
    """The rows of the ranges that are scored and not trained."""


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
        ends: where each partition ends; one that is not in it never does. None for none.
        rows: rows of a full cut.
        max_wait_s: longest wait of a row before a shorter step is cut; `arrival` only.
        is_strict: see the module.
        step: data steps cut before; `strict` shares rows out by it.
        step_rows: rows of a full data step, where a cut is several of them; None for as many as of a cut.
        first: partitions that are cut to their ends before any of the others is begun.
        align_ms: how far a partition may run ahead of the slowest that has more, in its records' timestamps; 0 for any.
            `arrival` only.
        marks: the last record before `positions`, of partitions of which it is known.
    """

    def __init__(
        self,
        *,
        positions: Positions,
        ends: Positions | None,
        rows: int,
        max_wait_s: float,
        is_strict: bool,
        step: int,
        first: frozenset[Partition] = frozenset(),
        align_ms: int = 0,
        step_rows: int | None = None,
        marks: Mapping[Partition, Mark] | None = None,
    ) -> None:
        self.positions = dict(positions)
        self._ends = ends
        self._rows = rows
        self._max_wait_s = max_wait_s
        self._is_strict = is_strict
        self.step = step
        """Data steps that were cut."""
        self.step_rows = step_rows or rows
        self._first = first
        self._align_ms = align_ms
        self._newest_ms: dict[Partition, int] = {}  # timestamps up to which blocks have come
        self._end_offsets: dict[Partition, int] = {}
        self._read_to = dict(positions)
        self.marks = dict(marks or {})
        """The last record that came of each partition, unless it was moved since: a new feed looks whether it is still the same."""
        self._passed: dict[Partition, RowRange] = {}  # behind the position, read, and without good rows
        self._passed_held_out: dict[Partition, list[Piece]] = {}  # in it; no row of these blocks is left but these
        self._arrived: deque[_Waiting] = deque()  # `arrival` alone: blocks of all partitions, as they came
        self._queues: dict[Partition, deque[_Waiting]] = {partition: deque() for partition in positions}
        self.num_waiting = 0
        self.num_idle_bytes = 0
        """What waiting blocks take of which no row is ever given to anybody."""
        self._num_rejects = 0  # read, and carried by no step yet

    @property
    def is_read(self) -> bool:
        """Every partition was read to its end."""
        return all(map(self.has_read, self.positions))

    def has_read(self, partition: Partition) -> bool:
        """Whether a partition was read to its end."""
        end = self._ends.get(partition) if self._ends is not None else None
        return end is not None and self._read_to[partition] >= end

    def is_next(self, meta: BlockMeta) -> bool:
        """Whether a block starts where what was read of its partition ends; others are from before positions were moved."""
        return self._read_to.get(meta.partition) == meta.start

    @property
    def unread(self) -> frozenset[Partition]:
        """The partitions of which more is to be read."""
        return frozenset(partition for partition in self.positions if not self.has_read(partition))

    @property
    def is_short(self) -> bool:
        """No full cut can be made of what waits."""
        if self._is_strict:
            return bool(self._short_of(self._waiting_rows()))
        return (
            sum(waiting.num_rows for waiting in self._aligned()) < self._rows
            if self._align_ms
            else self.num_waiting < self._rows
        )

    @property
    def is_laden(self) -> bool:
        """So many bad rows wait to be carried by a step that no more should be read before one is.

        Where some partitions wait for others, and a step may need rows that stand behind them, those alone count that a control step
        can carry.
        """
        passed = sum(len(item.rejects) for item in self._passed.values())
        return (passed if self._is_paced else self._num_rejects) >= MOST_REJECTS

    @property
    def is_finished(self) -> bool:
        """Every partition was read to its end and every good row was cut."""
        return self.num_waiting == 0 and self.is_read

    @property
    def passed(self) -> tuple[RowRange, ...]:
        """What was read behind the positions and has no good rows; `pass_over` moves behind it."""
        return tuple(self._passed[partition] for partition in sorted(self._passed))

    @property
    def held(self) -> frozenset[Partition]:
        """Partitions whose turn has not come: those that are not `first`, until every row of these is cut."""
        if all(self.has_read(p) and not self._queues[p] for p in self._first):
            self._first = frozenset()
        return frozenset(self._queues) - self._first if self._first else frozenset()

    def sated(self, limit_rows: int) -> frozenset[Partition]:
        """Partitions that are held; and where some wait for others, in `strict` order or aligned, those of which enough waits, that is
        their part of `limit_rows`, while others may have nothing.
        """
        held = self.held
        if not self._is_paced:
            return held
        rows = self._waiting_rows()
        num_going = sum(1 for p, waiting in rows.items() if waiting or self._goes_on(p))  # they share a step among them
        return held | {p for p, waiting in rows.items() if waiting and waiting * num_going >= limit_rows}

    @property
    def needed(self) -> frozenset[Partition]:
        """Partitions of which more may be needed before a full step can be cut."""
        if self._is_strict:
            return frozenset(self._short_of(self._waiting_rows()))
        if not self._align_ms:
            return frozenset(self._queues)
        aligned = {id(waiting) for waiting in self._aligned()}
        return frozenset(self._queues) - {w.meta.partition for w in self._arrived if id(w) not in aligned}

    def has_room(self, limit_rows: int) -> bool:
        """Whether more rows are wanted: of all partitions together; where some wait for others, of any."""
        if not self._is_paced:
            return self.num_waiting < limit_rows
        return len(self.sated(limit_rows)) < len(self._queues)

    @property
    def lacking(self) -> tuple[Partition, ...]:
        """`strict` alone: partitions of which a step lacks rows, while others have some."""
        rows = self._waiting_rows() if self._is_strict and self.num_waiting else {}
        return tuple(sorted(self._short_of(rows)))

    @property
    def read_to(self) -> Positions:
        """Up to where blocks have come, per partition: where a new feed goes on."""
        return dict(self._read_to)

    @property
    def heads(self) -> dict[Partition, BlockMeta]:
        """Of each partition of which rows wait, the block that they begin in."""
        return {partition: queue[0].meta for partition, queue in self._queues.items() if queue}

    def heard(self, end_offsets: Mapping[Partition, int]) -> None:
        """So far the partitions can be read now: one that was read up to there is idle."""
        self._end_offsets.update(end_offsets)

    def add(self, block_id: int, meta: BlockMeta, *, now_s: float) -> None:
        """A block came; per partition they come in order."""
        waiting = _Waiting(block_id, meta, now_s)
        self._newest_ms[meta.partition] = max(meta.newest_ms, self._newest_ms.get(meta.partition, 0))
        self._read_to[meta.partition] = meta.end
        if meta.offsets:
            self.marks[meta.partition] = Mark(meta.offsets[-1], meta.crcs[-1])
        self._queues[meta.partition].append(waiting)
        self.num_waiting += meta.num_rows
        self.num_idle_bytes += _idle_bytes(meta)
        self._num_rejects += len(meta.rejects)
        if meta.num_rows and not self._is_strict:
            self._arrived.append(waiting)
        self._pass_exhausted(meta.partition)

    def cut(self, *, now_s: float) -> Cut | None:
        """The next cut, or None while it has to wait for rows."""
        takes = self._takes_strict() if self._is_strict else self._takes_arrival(now_s)
        if not takes:
            return None
        ranges: list[RowRange] = []
        pieces: list[Piece] = []
        held_out: list[Piece] = []
        exhausted: list[int] = []
        newest_ms = 0
        for waiting, num_rows in takes:
            ranges.append(self._take(waiting, num_rows, held_out, exhausted))
            pieces.append((waiting.block_id, waiting.next_row - num_rows, waiting.next_row))
            newest_ms = max(newest_ms, waiting.meta.newest_ms)
        num_rows = sum(num_rows for _, num_rows in takes)
        self.step += -(-num_rows // self.step_rows)
        return Cut(
            ranges=merge_adjoining(ranges),
            pieces=tuple(pieces),
            num_rows=num_rows,
            newest_ms=newest_ms,
            exhausted=tuple(exhausted),
            held_out=tuple(held_out),
        )

    def pass_over(self) -> tuple[tuple[RowRange, ...], tuple[int, ...]]:
        """Ranges for a control step, and the blocks that are exhausted with them: what was read behind the positions and has no
        good rows. Positions move behind them; rows in them that are held out are not scored."""
        ranges, exhausted = self.passed, tuple(block for pieces in self._passed_held_out.values() for block, _, _ in pieces)
        self._passed, self._passed_held_out = {}, {}
        self._num_rejects -= sum(len(item.rejects) for item in ranges)
        self.positions.update({item.partition: item.end for item in ranges})
        return ranges, exhausted

    def move(self, moves: Iterable[Move]) -> tuple[int, ...]:
        """Positions are set, what waits of these partitions is forgotten; the blocks of which nothing is wanted any more."""
        moves = tuple(moves)
        positions = moved(self.positions, moves)
        gone: list[_Waiting] = []
        unscored: list[Piece] = []
        for move in moves:
            partition = move.partition
            self._num_rejects -= self._rejects_of(partition)
            gone += self._queues.pop(partition, ())
            self._passed.pop(partition, None)
            unscored += self._passed_held_out.pop(partition, ())
            self._read_to.pop(partition, None)
            self.marks.pop(partition, None)  # that record may be another one, where a topic was cut short
            if move.end is not None:
                self._queues[partition], self._read_to[partition] = deque(), move.end
        self.positions = positions
        self.num_waiting -= sum(waiting.num_rows for waiting in gone)
        self.num_idle_bytes -= sum(_idle_bytes(waiting.meta) for waiting in gone)
        changed = {move.partition for move in moves}
        self._first &= positions.keys()
        self._arrived = deque(waiting for waiting in self._arrived if waiting.meta.partition not in changed)
        return (*(waiting.block_id for waiting in gone), *(block for block, _, _ in unscored))

    def _rejects_of(self, partition: Partition) -> int:
        """Bad rows of a partition that no step carries yet."""
        passed, queue = self._passed.get(partition), self._queues.get(partition, ())
        place = self._place(partition) if queue else Position(0)
        waiting = (waiting.meta.range_to_end(max(place, waiting.meta.start)) for waiting in queue)
        return sum(len(item.rejects) for item in (*([passed] if passed else []), *waiting))

    @property
    def _is_paced(self) -> bool:
        return self._is_strict or self._align_ms > 0

    def _goes_on(self, partition: Partition) -> bool:
        """Whether it has more, as far as is known; in `strict` order, whether it may ever have."""
        if self._is_strict:
            return not self.has_read(partition)
        end = self._end_offsets.get(partition)
        return not self.has_read(partition) and (end is None or self._read_to[partition].offset < end)

    def _place(self, partition: Partition) -> Position:
        passed = self._passed.get(partition)
        return passed.end if passed else self.positions[partition]

    def _pass_exhausted(self, partition: Partition) -> None:
        """Drop the blocks at the queue's head that have no good rows left; remember what of them lies behind the position."""
        queue = self._queues[partition]
        while queue and queue[0].num_rows == 0:
            waiting = queue.popleft()
            self.num_idle_bytes -= _idle_bytes(waiting.meta)
            rest = waiting.meta.range_to_end(self._place(partition))
            if rest.start < rest.end:
                passed = self._passed.get(partition)
                self._passed[partition] = merge(passed, rest) if passed else rest
            if rest.left_out.held_out:
                first, stop = waiting.meta.held_out_between(rest.start, rest.end)
                self._passed_held_out.setdefault(partition, []).append((waiting.block_id, first, stop))

    def _take(self, waiting: _Waiting, num_rows: int, held_out: list[Piece], exhausted: list[int]) -> RowRange:
        """Move behind the next `num_rows` good rows of a block, the first of its partition's queue.

        Args:
            waiting: the block.
            num_rows: at most those that it has left.
            held_out: the held-out rows of the range are added.
            exhausted: the blocks of which no row is left now are added.
        """
        partition, meta = waiting.meta.partition, waiting.meta
        taken = meta.range_to(self._place(partition), waiting.next_row + num_rows)
        passed, pieces = self._passed.pop(partition, None), self._passed_held_out.pop(partition, [])
        held_out += pieces
        exhausted += [block for block, _, _ in pieces]
        if taken.left_out.held_out:
            held_out.append((waiting.block_id, *meta.held_out_between(taken.start, taken.end)))
        waiting.next_row += num_rows
        self.num_waiting -= num_rows
        self.positions[partition] = taken.end
        self._pass_exhausted(partition)
        if waiting.num_rows == 0 and all(block != waiting.block_id for block, _, _ in self._passed_held_out.get(partition, ())):
            exhausted.append(waiting.block_id)
        taken = merge(passed, taken) if passed else taken
        self._num_rejects -= len(taken.rejects)
        return taken

    def _takes_arrival(self, now_s: float) -> list[tuple[_Waiting, int]]:
        while self._arrived and self._arrived[0].num_rows == 0:
            self._arrived.popleft()
        arrived = self._aligned() if self._align_ms else self._arrived
        if not arrived:
            return []
        is_late = now_s - arrived[0].came_s >= self._max_wait_s
        num_rows = sum(waiting.num_rows for waiting in arrived) if self._align_ms else self.num_waiting
        if num_rows < self._rows and not is_late and not all(map(self.has_read, self._going())):
            return []
        return _take_from(arrived, self._rows)

    def _aligned(self) -> list[_Waiting]:
        """What came of the partitions that are not too far ahead, as it came. (A block's own span is half of what is allowed.)"""
        limit_ms = self._slowest_ms() + self._align_ms // 2
        self._arrived = deque(waiting for waiting in self._arrived if waiting.num_rows)
        ahead: set[Partition] = set()
        found = []
        for waiting in self._arrived:
            partition = waiting.meta.partition
            if waiting.meta.newest_ms > limit_ms or partition in ahead:
                ahead.add(partition)
            else:
                found.append(waiting)
        return found

    def _slowest_ms(self) -> int:
        """The timestamp of the partition that is furthest behind, of those that are not idle."""
        heads = self.heads
        late = [self._newest_ms.get(p, 0) for p in self._going() if p not in heads and self._goes_on(p)]
        return min([*late, *(meta.newest_ms for meta in heads.values())], default=0)

    def _takes_strict(self) -> list[tuple[_Waiting, int]]:
        rows = self._waiting_rows()
        if self._short_of(rows):
            return []
        shares = _shares(_active(rows), rows=self._rows, step=self.step)
        return [take for p, share in shares.items() for take in _take_from(self._queues[p], share)]

    def _waiting_rows(self) -> dict[Partition, int]:
        """Of every partition whose turn has come."""
        return {partition: sum(w.num_rows for w in self._queues[partition]) for partition in self._going()}

    def _going(self) -> list[Partition]:
        held = self.held
        return [partition for partition in self._queues if partition not in held]

    def _short_of(self, rows: Mapping[Partition, int]) -> list[Partition]:
        """Partitions that go on and have nothing; or, where there are none, less than their share."""
        if empty := [partition for partition in rows if rows[partition] == 0 and not self.has_read(partition)]:
            return empty
        shares = _shares(_active(rows), rows=self._rows, step=self.step)
        return [p for p, share in shares.items() if rows[p] < share and not self.has_read(p)]


def _idle_bytes(meta: BlockMeta) -> int:
    return 0 if meta.num_batch_rows else weight_bytes(meta)


def _active(rows: Mapping[Partition, int]) -> list[Partition]:
    return sorted(partition for partition in rows if rows[partition])


def _shares(active: list[Partition], *, rows: int, step: int) -> Mapping[Partition, int]:
    """Rows of each partition in a step; what does not divide goes round with the steps."""
    if not active:
        return {}
    base, rest = divmod(rows, len(active))
    return {p: base + ((i + step) % len(active) < rest) for i, p in enumerate(active)}


def _take_from(queue: Iterable[_Waiting], num_rows: int) -> list[tuple[_Waiting, int]]:
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
