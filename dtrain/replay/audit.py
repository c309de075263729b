"""The audit: is every row of the topic in the step log exactly once? Counted by reading the topic again, without the log's help."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.data.schema import Schema
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.positions import Partition, Position, Positions
from dtrain.steplog.ranges import RowRange
from dtrain.stream.source import Source


@dataclass(frozen=True, slots=True)
class Audit:
    """What the topic holds between the job's beginning and a checkpoint, and what the step log says became of it.

    Args:
        in_topic: rows that can be decoded.
        trained: rows in the log's ranges; in the weights, since both move together.
        rejected: rows that cannot be decoded, listed in the log by coordinate.
        lost: decodable rows in no range.
        doubled: decodable rows in more than one range, each time after the first.
    """

    in_topic: int
    trained: int
    rejected: int
    lost: int
    doubled: int

    def to_json(self) -> dict[str, Any]:
        """The counts by name."""
        return asdict(self)


@dataclass(slots=True)
class _Census:
    """Good rows of one partition, by position."""

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


def audit(
    store: CheckpointStore,
    source: Source,
    manifest: Manifest,
    *,
    start: Positions,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Audit:
    """Read the topic from `start` to the checkpoint's positions, and hold the log's ranges against it.

    Args:
        store: the job's.
        source: the job's topic.
        manifest: up to where.
        start: checkpoint 0's positions.
        on_progress: called with the rows read so far.

    Raises:
        DataLossError: the topic no longer has all of it.
    """
    censuses = _count(source, manifest, start=start, on_progress=on_progress)
    ranges: dict[Partition, list[RowRange]] = {}
    for entry in store.entries(manifest.progress):
        for item in entry.ranges:
            ranges.setdefault(item.partition, []).append(item)
    lost = doubled = 0
    for partition, census in censuses.items():
        spans = [(census.index(r.start), census.index(r.end)) for r in ranges.get(partition, [])]
        covered = _cover(spans)
        lost += census.num_rows - covered
        doubled += sum(stop - begin for begin, stop in spans) - covered
    return Audit(
        in_topic=sum(census.num_rows for census in censuses.values()),
        trained=sum(r.num_rows for items in ranges.values() for r in items),
        rejected=sum(len(r.rejects) for items in ranges.values() for r in items),
        lost=lost,
        doubled=doubled,
    )


def _count(
    source: Source, manifest: Manifest, *, start: Positions, on_progress: Callable[[int], None]
) -> dict[Partition, _Census]:
    ends = manifest.progress.positions
    censuses = {partition: _Census() for partition in ends}
    places = dict(start)
    feed = source.follow(start, schema=Schema(manifest.schema), ends=ends)
    try:
        while any(places[partition] < end for partition, end in ends.items()):
            for block in feed.poll(max_wait_s=1.0):
                censuses[block.meta.partition].add(block.meta)
                places[block.meta.partition] = block.meta.end
            on_progress(sum(census.num_rows for census in censuses.values()))
    finally:
        feed.close()
    return censuses


def _cover(spans: Iterable[tuple[int, int]]) -> int:
    """How many numbers lie in at least one of the spans [start, stop)."""
    covered = reached = 0
    for start, stop in sorted(spans):
        covered += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return covered
