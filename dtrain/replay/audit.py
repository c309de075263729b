"""The audit: is every row of the topics in the step log exactly once? Counted by reading them again, with no other help of the log than
where it was told to pass over something."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.data.missing_schemas import may_pass
from dtrain.data.schema import Schema
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.spans import OpenSpan, Part
from dtrain.stream.source import Source


@dataclass(frozen=True, slots=True)
class Audit:
    """What the topic holds between the job's beginning and a checkpoint, and what the step log says became of it.

    Args:
        in_topic: rows that can be decoded.
        trained: rows of the log's steps; in the weights, since both move together.
        skipped: rows of steps that the log says were left out.
        open: rows of a span that is open at the checkpoint: positions have passed them, and they are not trained yet.
        rejected: rows that cannot be decoded, listed in the log by coordinate.
        offsets_skipped: offsets that the log passes over, because their records were lost or shed; their rows count nowhere.
        lost: decodable rows in no range, or of a span and in none of its parts.
        doubled: decodable rows in more than one range, or in more than one part of their span, each time after the first.
    """

    in_topic: int
    trained: int
    skipped: int
    rejected: int
    offsets_skipped: int
    lost: int
    doubled: int
    open: int = 0


@dataclass(slots=True)
class _Leg:
    """A partition from one place on, where the job began with it or was moved to: good rows by position, and the log's ranges."""

    start: Position
    end: Position
    ranges: list[RowRange] = field(default_factory=list)
    metas: list[BlockMeta] = field(default_factory=list)
    starts: list[Position] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    num_rows: int = 0

    def add(self, meta: BlockMeta) -> None:
        self.metas.append(meta)
        self.starts.append(meta.start)
        self.before.append(self.num_rows)
        self.num_rows += meta.num_rows

    def index(self, position: Position) -> int:
        """Good rows before `position`."""
        block = bisect_right(self.starts, position) - 1
        return 0 if block < 0 else self.before[block] + self.metas[block].rows_before(position)

    @property
    def bad(self) -> dict[int, str]:
        """The records that the log calls bad, and time may have made good."""
        rejects = (reject for item in self.ranges for reject in item.rejects)
        return {reject.offset: reject.reason for reject in rejects if may_pass(reject.reason)}

    def spans(self) -> list[tuple[int, int]]:
        """Which of the leg's good rows each range holds."""
        return [(self.index(item.start), self.index(item.end)) for item in self.ranges]


class _Parts:
    """The parts of spans, one span after the other: how many rows of them are in none, and in several."""

    def __init__(self, span: OpenSpan | None) -> None:
        self.lost = self.doubled = 0
        self._span_rows = span.part.span_rows if span is not None else 0
        self._spans = [(0, span.part.start)] if span is not None else []

    def add(self, part: Part, num_rows: int) -> None:
        if part.start == 0:
            self.close()
            self._span_rows = part.span_rows
        self._spans.append((part.start, part.start + num_rows))

    def close(self) -> int:
        """The span is over; how many rows of it are in no part."""
        covered = _cover(self._spans)
        left = self._span_rows - covered
        self.lost += left
        self.doubled += sum(stop - start for start, stop in self._spans) - covered
        self._span_rows, self._spans = 0, []
        return left


def audit(
    store: CheckpointStore,
    source: Source,
    manifest: Manifest,
    *,
    start: Manifest,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Audit:
    """Read the topics from one checkpoint's positions to another's, and hold the log's ranges against them.

    Args:
        store: the job's.
        source: the job's topics.
        manifest: up to where.
        start: from where on, as checkpoint 0.
        on_progress: called with the rows read so far.

    Raises:
        DataLossError: the topics no longer have all of it.
    """
    legs = {partition: [_Leg(place, place)] for partition, place in start.progress.positions.items()}
    trained = skipped = 0
    parts = _Parts(start.progress.span)
    for entry in store.entries(manifest.progress, after=start.progress.plan_number):
        trained += 0 if entry.skipped else entry.num_rows
        skipped += entry.num_rows if entry.skipped else 0
        if entry.part is not None:
            parts.add(entry.part, entry.num_rows)
        for item in entry.ranges:
            legs[item.partition][-1].ranges.append(item)
        for move in entry.moves:
            path = legs.setdefault(move.partition, [])
            if move.start is not None:
                path[-1].end = move.start
            if move.end is not None:
                path.append(_Leg(move.end, move.end))
    for partition, place in manifest.progress.positions.items():
        legs[partition][-1].end = place
    _read(source, legs, Schema(manifest.schema), on_progress=on_progress)
    every = [leg for path in legs.values() for leg in path]
    ranges = [item for leg in every for item in leg.ranges]
    covered = [_cover(leg.spans()) for leg in every]
    num_left = parts.close()
    num_open = num_left if manifest.progress.span is not None else 0
    return Audit(
        in_topic=sum(leg.num_rows for leg in every),
        trained=trained,
        skipped=skipped,
        rejected=sum(len(item.rejects) for item in ranges),
        offsets_skipped=manifest.progress.offsets_skipped - start.progress.offsets_skipped,
        lost=sum(leg.num_rows - rows for leg, rows in zip(every, covered, strict=True)) + parts.lost - num_open,
        doubled=sum(stop - begin for leg in every for begin, stop in leg.spans()) - sum(covered) + parts.doubled,
        open=num_open,
    )


def _read(
    source: Source, legs: Mapping[Partition, Sequence[_Leg]], schema: Schema, *, on_progress: Callable[[int], None]
) -> None:
    """Every leg knows the rows between its ends; the first legs of all partitions are read together, then the second ones."""
    for number in range(max(map(len, legs.values()))):
        here = {p: path[number] for p, path in legs.items() if number < len(path) and path[number].start < path[number].end}
        if not here:
            continue
        places = {partition: leg.start for partition, leg in here.items()}
        ends = {partition: leg.end for partition, leg in here.items()}
        bad = {partition: leg.bad for partition, leg in here.items()}
        with closing(source.follow(places, schema=schema, ends=ends, bad=bad)) as feed:
            while any(places[partition] < end for partition, end in ends.items()):
                for block in feed.poll(max_wait_s=1.0):
                    here[block.meta.partition].add(block.meta)
                    places[block.meta.partition] = block.meta.end
                on_progress(sum(leg.num_rows for path in legs.values() for leg in path))


def _cover(spans: Iterable[tuple[int, int]]) -> int:
    """How many numbers lie in at least one of the spans [start, stop)."""
    covered = reached = 0
    for start, stop in sorted(spans):
        covered += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return covered
