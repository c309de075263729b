"""Sources over a log: everything of the `Source` contract that is the same for Kafka and for its twin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from dtrain.clock import Clock, SystemClock
from dtrain.data.block import RawRecord
from dtrain.data.decode import crc_of
from dtrain.data.schema import Schema
from dtrain.errors import DataLossError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition, Position, Positions
from dtrain.steplog.ranges import RowRange
from dtrain.stream.bounds import ends, starts
from dtrain.stream.cursor import Cursor
from dtrain.stream.cut import Cut, runs
from dtrain.stream.feed import LogFeed, check_range, check_topic
from dtrain.stream.log import Fetched, Letter, Log, OutOfRangeError
from dtrain.stream.source import Identity, Mark

SILENCE_S = 10.0
"""How long a log may bring nothing of what it says that it holds."""

SPAN_GAP = 1000
"""Offsets between two places that are rather read over than sought."""


class LogSource:
    """The `Source` over a log; see there for the contract.

    Args:
        spec: what to read.
        log: the topic.
        clock: for waiting.
    """

    def __init__(self, spec: SourceSpec, log: Log, *, clock: Clock | None = None) -> None:
        self._spec = spec
        self._log = log
        self._clock = clock or SystemClock()

    def identify(self) -> Identity:
        """See `Source.identify`."""
        return self._log.describe()

    def resolve_start(self) -> dict[Partition, Position]:
        """See `Source.resolve_start`; InputError when the spec's `start` does not fit the topic."""
        return starts(self._spec.start, bounds=self._log.bounds(), offsets_at=self._log.offsets_at)

    def resolve_end(self) -> dict[Partition, Position] | None:
        """See `Source.resolve_end`; InputError when the spec's `end` does not fit the topic."""
        bounds = self._log.bounds()
        return ends(self._spec.end, bounds=bounds, offsets_at=self._log.offsets_at, now_s=self._clock.wall_s())

    def follow(
        self,
        positions: Positions,
        *,
        schema: Schema,
        ends: Positions | None,
        identity: Identity | None = None,
        marks: Mapping[Partition, Mark] | None = None,
    ) -> LogFeed:
        """See `Source.follow`."""
        if identity is None:
            identity = self._log.describe()
        else:
            check_topic(self._log, identity.topic_id, clock=self._clock)
        cursors = [self._cursor(p, start, end=ends[p] if ends else None, schema=schema) for p, start in positions.items()]
        check_range(self._log, {c.partition: c.position for c in cursors if not c.is_done}, clock=self._clock)
        self._check_marks(marks or {})
        return LogFeed(self._log, cursors, topic_id=identity.topic_id, clock=self._clock)

    def fetch(self, ranges: Sequence[RowRange], *, schema: Schema) -> list[pa.RecordBatch]:
        """See `Source.fetch`."""
        cuts = [Cut(item) for item in ranges]
        for run in runs([cut for cut in cuts if cut.item.num_rows], max_gap=SPAN_GAP):
            self._cut(run, schema=schema)
        return [cut.batch(schema) for cut in cuts]

    def send_rejects(self, ranges: Sequence[RowRange], *, to_topic: str, job_id: str) -> int:
        """See `Source.send_rejects`. A record that is gone by now is sent without its value."""
        offsets: dict[Partition, set[int]] = {}
        for item in ranges:
            offsets.setdefault(item.partition, set()).update(reject.offset for reject in item.rejects)
        records = {partition: self._records_at(partition, wanted) for partition, wanted in offsets.items()}
        letters = []
        for item in ranges:
            for reject in item.rejects:
                coordinate = f"{item.partition}:{reject.offset}:{reject.row}".encode()
                record = records[item.partition].get(reject.offset)
                headers = [
                    ("dtrain-coordinate", coordinate),
                    ("dtrain-reason", reject.reason.encode()),
                    ("dtrain-job", job_id.encode()),
                ]
                letters.append(Letter(coordinate, record.value if record else None, headers))
        if letters:
            self._log.send(letters, to_topic=to_topic)
        return len(letters)

    def commit(self, positions: Positions, *, group: str) -> None:
        """See `Source.commit`."""
        self._log.commit({partition: position.offset for partition, position in positions.items()}, group=group)

    def close(self) -> None:
        """See `Source.close`."""
        self._log.close()

    def _cursor(self, partition: Partition, start: Position, *, end: Position | None, schema: Schema) -> Cursor:
        return Cursor(partition, start, end=end, schema=schema, value_format=self._spec.format)

    def _check_marks(self, marks: Mapping[Partition, Mark]) -> None:
        bounds = self._log.bounds()
        for partition, mark in marks.items():
            begin, end = bounds[partition]
            if not begin <= mark.offset < end:
                continue
            record = self._records_at(partition, {mark.offset}).get(mark.offset)
            if record is not None and crc_of(record) != mark.crc:
                raise DataLossError(
                    f"{partition}: the record at offset {mark.offset} is another one than the job trained",
                    fix="the topic was made anew or changed; start a new job on it",
                )

    def _records_at(self, partition: Partition, offsets: set[int]) -> dict[int, RawRecord]:
        """The records at `offsets`, as far as they are there."""
        found: dict[int, RawRecord] = {}
        begin = self._log.bounds()[partition].begin if offsets else 0
        wanted = sorted(offset for offset in offsets if offset >= begin)
        while wanted:
            count = next((i for i in range(1, len(wanted)) if wanted[i] - wanted[i - 1] > SPAN_GAP), len(wanted))
            for _, records, _ in self._read(partition, wanted[0], wanted[count - 1] + 1):
                found.update((record.offset, record) for record in records if record.offset in offsets)
            del wanted[:count]
        return found

    def _read(self, partition: Partition, start: int, stop: int) -> Iterator[Fetched]:
        """Everything of `partition` from offset `start` to `stop`.

        Raises:
            DataLossError: it is not all there.
            UnavailableError: the broker has gone silent.
        """
        check_range(self._log, {partition: Position(start)}, stops={partition: Position(stop)}, clock=self._clock)
        tail = self._log.tail({partition: start})
        try:
            heard_at_s = self._clock.monotonic_s()
            while start < stop:
                for fetched in tail.poll(max_wait_s=0.5):
                    heard_at_s, start = self._clock.monotonic_s(), fetched.next_offset
                    yield fetched
                if self._clock.monotonic_s() - heard_at_s > SILENCE_S:
                    raise UnavailableError(
                        f"{partition}: nothing comes from offset {start} on", fix="see whether the broker is well"
                    )
        except OutOfRangeError as error:
            check_range(self._log, {partition: Position(start)}, clock=self._clock)
            raise UnavailableError("the broker had not all of its records for a moment", fix="try again") from error
        finally:
            tail.close()

    def _cut(self, cuts: Sequence[Cut], *, schema: Schema) -> None:
        """Give the rows of `cuts`, which follow each other closely in one partition, to each of them."""
        partition, start, end = cuts[0].item.partition, cuts[0].item.start, max(cut.item.end for cut in cuts)
        cursor = self._cursor(partition, start, end=end, schema=schema)
        for _, records, next_offset in self._read(partition, start.offset, end.offset + (end.row > 0)):
            for block in cursor.take(records, next_offset=next_offset):
                for cut in cuts:
                    cut.add(block)
