"""The stream of the simulator: a small topic with an end, and bad records in it; what is read of it may change."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable

from dtrain.policy.blocking import Size
from dtrain.policy.cutting import Cutter
from dtrain.runtime.planner import Planner
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.entries import Entry, Plan
from dtrain.steplog.moves import Change, Move
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import Reject

PARTITIONS = (Partition("topic", 0), Partition("topic", 1))
BEGIN = {partition: Position(0) for partition in PARTITIONS}
ADDED = Partition("topic", 2)
"""Comes later, where what is read changes, or never."""
ENDS = {PARTITIONS[0]: Position(7), PARTITIONS[1]: Position(6), ADDED: Position(4)}
REJECTS = {PARTITIONS[0]: (2, 6), PARTITIONS[1]: (3,), ADDED: (1,)}
"""Offsets of bad records; every record has one row."""

Coordinate = tuple[Partition, int]


def brief(plan: Plan) -> str:
    """A plan in few words: `5 data 0:3-4 1:0-2`."""
    ranges = (f"{item.partition.number}:{item.start.offset}-{item.end.offset}" for item in plan.ranges)
    part = (f"{plan.part.start}+{plan.num_rows}/{plan.part.span_rows}",) if plan.part is not None else ()
    return " ".join((str(plan.number), plan.kind.value, *ranges, *part))


def rejects_of(progress: Progress) -> set[Coordinate]:
    """The bad rows that a replica at `progress` has passed."""
    return {(p, offset) for p, at in progress.positions.items() for offset in REJECTS[p] if offset < at.offset}


def rejects_in(entries: Iterable[Entry]) -> set[Coordinate]:
    """The bad rows that these steps have passed; what they have moved over is none of theirs."""
    ranges = (item for entry in entries for item in entry.ranges)
    return {(r.partition, o) for r in ranges for o in REJECTS[r.partition] if r.start.offset <= o < r.end.offset}


def is_at_end(progress: Progress) -> bool:
    """Whether every partition that is read was read to its end, and every row of a span is trained."""
    return progress.span is None and all(at == ENDS[p] for p, at in progress.positions.items())


def next_change(planner: Planner, *, rng: random.Random) -> Change:
    """What is read changes: a partition comes, or some rows of one are passed over; nothing, where chance will have it."""
    positions = planner.cutter.positions
    partition = rng.choice((*PARTITIONS, ADDED))
    if partition not in positions:
        return Change((Move(partition, None, Position(0), "added"),))
    first, end = positions[partition].offset, ENDS[partition].offset
    if first == end:
        return Change()
    return Change((Move(partition, positions[partition], Position(rng.randint(first + 1, end)), "lag"),))


def new_planner(progress: Progress, *, rng: random.Random, is_shuffled: bool) -> Planner:
    """Goes on behind `progress`, cutting as chance will have it."""
    rows, is_strict = rng.choice((1, 2, 4)), rng.random() < 0.3
    step_rows, rows = (rng.choice((1, 2)), 2 * rows) if is_shuffled else (rows, rows)
    cutter = Cutter(
        positions=progress.positions,
        ends=ENDS,
        rows=rows,
        max_wait_s=60.0 if is_shuffled else 0.0,
        is_strict=is_strict,
        step=progress.step + (progress.span.num_steps(step_rows) if progress.span is not None else 0),
        step_rows=step_rows,
    )
    seed = 0 if is_shuffled else None
    planner = Planner(cutter, progress=progress, budget=1.0, buffer=Size(100, 1 << 20), shuffle_seed=seed)
    planner.is_careful = is_shuffled  # one part at a time: control steps come between them
    return planner


def read(planner: Planner, *, rng: random.Random) -> set[Coordinate]:
    """One more block comes, of any partition that has not ended, or the rows of an open span again; which of its rows are bad."""
    if planner.dealer.missing and rng.random() < 0.5:
        planner.reopen(None, num_bytes=0)
        return set()
    read_to = planner.cutter.read_to
    unread = [partition for partition in sorted(read_to) if read_to[partition] < ENDS[partition]]
    if not unread:
        return set()
    partition = rng.choice(unread)
    first = read_to[partition].offset
    block = _block(partition, first, stop=min(first + rng.choice((1, 1, 2, 3)), ENDS[partition].offset))
    planner.add_blocks([block], None, now_s=0.0)
    return {(partition, reject.offset) for reject in block.rejects}


def _block(partition: Partition, first: int, *, stop: int) -> BlockMeta:
    offsets = array("q", range(first, stop))
    return BlockMeta(
        partition=partition,
        start=Position(first),
        end=Position(stop),
        offsets=offsets,
        raw_rows=array("q", [1] * len(offsets)),
        crcs=offsets,
        rejects=tuple(Reject(offset, 0, "bad") for offset in REJECTS[partition] if first <= offset < stop),
    )
