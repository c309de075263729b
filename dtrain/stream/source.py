"""Where records come from: topics, read by position, over whatever log they are kept in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa

from dtrain.clock import Clock
from dtrain.data.block import Block, RawRecord
from dtrain.data.decode import crc_of
from dtrain.data.formats import reader_of
from dtrain.data.messages import ReadRows, settled
from dtrain.data.missing_schemas import may_pass
from dtrain.data.schema import Schema
from dtrain.data.transforms import Transform, Transforms
from dtrain.errors import InputError, NotFoundError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.moves import Change, Move
from dtrain.steplog.positions import Mark, Partition, Position, Positions
from dtrain.steplog.ranges import Reject, RowRange
from dtrain.stream import lookback
from dtrain.stream.bounds import ends, starts
from dtrain.stream.cursor import Cursor
from dtrain.stream.cut import Cut, runs
from dtrain.stream.feed import Feed, Late
from dtrain.stream.log import VALUE_IN, Fetched, Identity, Letter, Log, OutOfRangeError, until
from dtrain.stream.lookback import Lookback
from dtrain.stream.losses import NOT_ALL_THERE, WAYS_OUT, Loss, begun, changed, check, find_losses
from dtrain.stream.selection import topics_of

SILENCE_S = 10.0
"""How long a log may bring nothing of what it says that it holds."""

SEND_BYTES = 16 << 20
"""About how many bytes of letters wait here before they are sent, and acknowledged."""

SPAN_GAP = 1000
"""Offsets between two places that are rather read over than sought."""


class Source:
    """Topics, read by position. No consumer group decides anything: partitions are assigned by hand."""

    def __init__(self, spec: SourceSpec, log: Log, *, clock: Clock) -> None:
        self._spec = spec
        self._log = log
        self._clock = clock
        self._read_rows: ReadRows | None = None
        self._lookback: Lookback | None = None

    def transform_rows(self, transforms: Transforms | None) -> None:
        """Rows go through `transforms` from now on, whoever reads them; None for as they are decoded."""
        if transforms is not None:
            self._lookback = Lookback(
                transforms, read=self._read_back, begin_of=self._begin_of, first_of=self._first_of, max_gap=SPAN_GAP
            )

    def stream_schema(self, schema: Schema) -> Schema:
        """The columns that are read where the task's are those of `schema`."""
        return schema if self._lookback is None else self._lookback.stream_schema(schema)

    def identify(self) -> Identity:
        """Which topics these are now.

        Raises:
            NotFoundError: one of those named is not there, or no topic matches the pattern.
            InputError: a chosen partition is not there; names `source.partitions`.
            UnavailableError: no broker.
        """
        found = self._log.describe()
        missing = [repr(name) for name in self._spec.named_topics if name not in found.topic_ids]
        if missing or not found.topic_ids:
            what = ", ".join(missing) or f"that matches {self._spec.pattern!r}"
            raise NotFoundError(f"Kafka at {self._spec.bootstrap} has no topic {what}", fix="create it, or correct its name")
        for topic in topics_of(self._spec, found.topic_ids):
            numbers = {partition.number for partition in found.leader_epochs if partition.topic == topic}
            if absent := sorted(set(self._spec.partitions) - numbers):
                raise InputError(f"`source.partitions`: {topic} has no partition {absent[0]}", fix="leave it out")
        return found

    def recall(self, identity: Identity) -> None:
        """What was settled in checkpoint 0 holds from now on. A topic tells what it is by itself; see `FileSource`."""

    def resolve_start(self) -> dict[Partition, Position]:
        """Positions of every partition for the spec's `start`, as of now; made once, for checkpoint 0."""
        self.identify()
        return starts(self._spec.start, bounds=self._log.bounds(), offsets_at=self._log.offsets_at)

    def resolve_end(self) -> dict[Partition, Position] | None:
        """Where every partition ends for the spec's `end`, as of now; None for never. Made once, for checkpoint 0."""
        self.identify()
        bounds = self._log.bounds()
        return ends(self._spec.end, bounds=bounds, offsets_at=self._log.offsets_at, now_s=self._clock.wall_s())

    def discover(self, known: Collection[Partition], *, identity: Identity) -> Change:
        """The partitions that have come since, each from its first record on.

        Args:
            known: partitions that are read already.
            identity: of the topics that were read so far; one that was made anew meanwhile brings nothing here.
        """
        now = self._log.describe()
        topics = {name: topic_id for name, topic_id in now.topic_ids.items() if name not in identity.topic_ids}
        told = {**identity.topic_ids, **topics}
        new = [p for p in sorted(now.leader_epochs) if p not in known and told[p.topic] == now.topic_ids[p.topic]]
        return Change(tuple(Move(p, None, Position(0), "added") for p in new), tuple(sorted(topics.items())))

    def follow(
        self,
        positions: Positions,
        *,
        schema: Schema,
        ends: Positions | None,
        identity: Identity | None = None,
        marks: Mapping[Partition, Mark] | None = None,
        bad: Mapping[Partition, Mapping[int, str]] | None = None,
    ) -> Feed:
        """A feed from `positions` to `ends` (None: for ever). A partition without a leader keeps it from no other: it is looked at, and
        read, as soon as it has one. Records at the offsets of `bad` are bad for these reasons, whatever they would be read as now.

        Raises:
            DataLossError: a topic is not the one of `identity`, records at or behind a position are gone, or the record at a mark
                is *different* from it; that it is *absent* is legal after retention or compaction.
        """
        topic_ids = (identity or self.identify()).topic_ids
        now = self._log.describe()

        def cursors(some: Positions, *, now: Identity | None = None) -> list[Cursor]:
            check(self._losses(some, ends=ends, topic_ids=topic_ids, marks=marks or {}, now=now), fix=WAYS_OUT)
            stops, fates = ends or {}, bad or {}
            return [self._cursor(p, at, end=stops.get(p), schema=schema, bad=fates.get(p)) for p, at in some.items()]

        def late(partition: Partition) -> Late:
            one = {partition: positions[partition]}
            return Late(positions[partition].offset, lambda: cursors(one)[0])

        return Feed(
            self._log,
            cursors({partition: start for partition, start in positions.items() if partition not in now.leaderless}, now=now),
            late={partition: late(partition) for partition in positions if partition in now.leaderless},
            topic_ids=topic_ids,
            clock=self._clock,
        )

    def gaps(
        self, positions: Positions, *, ends: Positions | None, identity: Identity, marks: Mapping[Partition, Mark]
    ) -> Change:
        """How a job gets past all for which `follow` would raise `DataLossError`: on from where records are left. What a partition
        without a leader has lost is not known now.

        Raises:
            DataLossError: none are left.
        """
        now = self._log.describe()
        led = {partition: place for partition, place in positions.items() if partition not in now.leaderless}
        losses = self._losses(led, ends=ends, topic_ids=identity.topic_ids, marks=marks, now=now)
        moves = tuple(loss.move for loss in losses)
        if len(moves) == len(positions) and all(move.end is None for move in moves):
            check(losses, fix="start a new job on another topic")
        gone = {move.partition for move in moves if move.end is None}
        anew = {move.partition.topic for move in moves if move.reason == "recreated"}
        topics = {topic: topic_id for topic, topic_id in self._log.describe().topic_ids.items() if topic in anew}
        left = {p.topic for p in positions} - {p.topic for p in positions if p not in gone} - anew
        topics |= dict.fromkeys(left, "")  # one that comes back, as when it was but hidden, is no new one to `discover`
        return Change(moves, tuple(sorted(topics.items())))

    def fetch(self, ranges: Sequence[RowRange], *, schema: Schema) -> list[pa.RecordBatch]:
        """The good rows of each range, and behind them those that are held out, one batch a range, in the same order.

        Raises:
            DataLossError: rows of a range are gone, or are others than those the range was cut from.
        """
        cuts = [Cut(item) for item in ranges]
        for run in runs([cut for cut in cuts if cut.item.num_rows or cut.item.left_out.held_out], max_gap=SPAN_GAP):
            self._cut(run, schema=schema)
        return [cut.batch(schema) for cut in cuts]

    def decode(self, record: RawRecord, *, partition: Partition, schema: Schema) -> Block:
        """One record as the source decodes it, before any transform."""
        start, read = Position(record.offset), self._reader_of(partition)
        cursor = Cursor(partition, start, end=None, schema=self.stream_schema(schema), read=read)
        (block,) = cursor.take([record], next_offset=record.offset + 1)
        return block

    def send_rejects(self, ranges: Sequence[RowRange], *, to_topic: str, job_id: str) -> int:
        """Write a letter for every rejected row of `ranges` to `to_topic`, with its record's value, read again by offset (none if it
        is gone); return how many. Of a record's letters the first has the value; the others are empty and name that one.

        Headers: dtrain-coordinate (`topic:partition:offset:row`), dtrain-reason, dtrain-job, dtrain-key, the record's own, where it
        has one, and dtrain-value-in, the coordinate of the letter with the value, where that is another one. The letter's key is the
        coordinate.

        Delivery: at least once; all are acknowledged by the broker when the call returns.
        """
        num_letters, num_bytes, waiting = 0, 0, list[Letter]()
        for letter in self._letters(ranges, job_id=job_id):
            waiting.append(letter)
            num_letters, num_bytes = num_letters + 1, num_bytes + letter.num_bytes
            if num_bytes >= SEND_BYTES:
                self._log.send(waiting, to_topic=to_topic)
                num_bytes, waiting = 0, []
        if waiting:
            self._log.send(waiting, to_topic=to_topic)
        return num_letters

    def commit(self, positions: Positions, *, group: str) -> None:
        """Give positions back as a consumer group's offsets so that lag tools work; advisory, never the truth."""
        self._log.commit({partition: position.offset for partition, position in positions.items()}, group=group)

    def close(self) -> None:
        """Free what the source holds. May be called twice."""
        self._log.close()

    def _cursor(
        self,
        partition: Partition,
        start: Position,
        *,
        end: Position | None,
        schema: Schema,
        bad: Mapping[int, str] | None = None,
    ) -> Cursor:
        """A cursor over a partition; see `follow` for `bad`."""
        read = settled(self._reader_of(partition), bad) if bad else self._reader_of(partition)
        span_ms = round(self._spec.align * 500)  # half of what is allowed between partitions; the rest is the cutter's
        if self._lookback is None or (end is not None and start >= end):
            return Cursor(partition, start, end=end, schema=schema, read=read, span_ms=span_ms)

        def new_cursor(start: Position, end: Position | None, transform: Transform) -> Cursor:
            return Cursor(partition, start, end=end, schema=transform.stream, read=read, transform=transform, span_ms=span_ms)

        return new_cursor(start, end, self._lookback.transform(partition, start, schema=schema, new_cursor=new_cursor))

    def _reader_of(self, partition: Partition) -> ReadRows:  # noqa: ARG002 - files have another one
        if self._read_rows is None:
            self._read_rows = reader_of(self._spec.format)
        return self._read_rows

    def _excerpt(self, partition: Partition, record: RawRecord, row: int) -> bytes | None:  # noqa: ARG002 - files send rows
        """What of a record is sent for a bad row of it."""
        return record.value

    def _read_back(self, partition: Partition, start: int, stop: int) -> Iterator[Fetched]:
        """See `_read`; `start` may be in the middle of a record, which is of files alone."""
        return self._read(partition, start, stop)

    def _first_of(self, partition: Partition) -> int:  # noqa: ARG002 - files have another one
        return lookback.FIRST_OFFSETS

    def _begin_of(self, partition: Partition) -> int:
        return self._log.bounds([partition])[partition].begin

    def _letters(self, ranges: Sequence[RowRange], *, job_id: str) -> Iterator[Letter]:
        """Of every rejected row, by partition and coordinate; their records are read as the letters are wanted."""
        bad: dict[Partition, dict[int, list[Reject]]] = {}
        for item in ranges:
            for reject in item.rejects:
                bad.setdefault(item.partition, {}).setdefault(reject.offset, []).append(reject)
        for partition, rejects in bad.items():
            found = self._records_at({partition: rejects}, is_brief=False)
            _, record = next(found, (partition, None))
            for offset in sorted(rejects):
                is_there = record is not None and record.offset == offset
                yield from self._letters_of(partition, record if is_there else None, rejects[offset], job_id=job_id)
                if is_there:
                    _, record = next(found, (partition, None))

    def _letters_of(
        self, partition: Partition, record: RawRecord | None, rejects: Sequence[Reject], *, job_id: str
    ) -> Iterator[Letter]:
        first = f"{partition}:{rejects[0].offset}:{rejects[0].row}"
        for reject in rejects:
            coordinate = f"{partition}:{reject.offset}:{reject.row}"
            about = {"coordinate": coordinate, "reason": reject.reason, "job": job_id}
            headers = [(f"dtrain-{name}", text.encode(errors="replace")) for name, text in about.items()]
            if record is not None and record.key is not None:
                headers.append(("dtrain-key", record.key))
            value = self._excerpt(partition, record, reject.row) if record else None
            if record is not None and value is not None and value is record.value and coordinate != first:
                headers.append((VALUE_IN, first.encode()))
                value = b""  # not None, which compaction would take for a tombstone
            yield Letter(coordinate.encode(), value, headers)

    def _losses(
        self,
        positions: Positions,
        *,
        ends: Positions | None,
        topic_ids: Mapping[str, str],
        marks: Mapping[Partition, Mark],
        now: Identity | None = None,
    ) -> list[Loss]:
        left = {p: place for p, place in positions.items() if ends is None or p not in ends or place < ends[p]}
        losses = find_losses(self._log, left, topic_ids=topic_ids, now=now, clock=self._clock)
        there = positions.keys() - {loss.move.partition for loss in losses}
        halved = {p: {left[p].offset} for p in there & left.keys() if left[p].row}
        marked = {p: {marks[p].offset} for p in there & marks.keys()}
        wanted = {p: halved.get(p, set()) | marked.get(p, set()) for p in halved.keys() | marked.keys()}
        crcs: dict[Partition, dict[int, int]] = {p: {} for p in there}
        for partition, record in self._records_at(wanted, is_brief=True):
            crcs[partition][record.offset] = crc_of(record)
        others = [changed(p, positions[p], marks[p], crcs[p]) for p in sorted(marked)]
        begun_ones = [begun(p, positions[p], crcs[p]) for p in sorted(halved)]
        found = {loss.move.partition: loss for loss in [*begun_ones, *others] if loss is not None}
        return losses + [found[p] for p in sorted(found)]

    def _records_at(
        self, offsets: Mapping[Partition, Collection[int]], *, is_brief: bool
    ) -> Iterator[tuple[Partition, RawRecord]]:
        """The records at `offsets`, as far as they are there; those of a partition in order.

        Raises:
            UnavailableError: the broker has gone silent, or has lost some while they were read.
        """
        bounds = self._log.bounds(offsets) if offsets else {}
        wanted = {p: sorted(o for o in offsets[p] if begin <= o < end) for p, (begin, end) in bounds.items()}
        while wanted := {p: some for p, some in wanted.items() if some}:
            nearby = {p: _close_by(some) for p, some in wanted.items()}
            try:
                for partition, records, _ in self._pass(
                    {p: (some[0], some[-1] + 1) for p, some in nearby.items()}, is_brief=is_brief
                ):
                    yield from ((partition, record) for record in records if record.offset in offsets[partition])
            except OutOfRangeError as error:
                raise UnavailableError("the broker had not all of its records for a moment", fix="try again") from error
            wanted = {p: some[len(nearby[p]) :] for p, some in wanted.items()}

    def _read(self, partition: Partition, start: int, stop: int) -> Iterator[Fetched]:
        """Everything of `partition` from offset `start` to `stop`.

        Raises:
            DataLossError: it is not all there.
            UnavailableError: the broker has gone silent.
        """
        self._check_range(partition, start, stop)
        try:
            yield from self._pass({partition: (start, stop)})
        except OutOfRangeError as error:
            self._check_range(partition, start, stop)
            raise UnavailableError("the broker had not all of its records for a moment", fix="try again") from error

    def _pass(self, spans: Mapping[Partition, tuple[int, int]], *, is_brief: bool = False) -> Iterator[Fetched]:
        """What each partition has from an offset to another.

        Raises:
            OutOfRangeError: it is not there.
            UnavailableError: the broker has gone silent.
        """
        places = {partition: start for partition, (start, stop) in spans.items() if start < stop}
        if not places:
            return
        tail = self._log.tail(places, is_brief=is_brief)
        todo = {partition: spans[partition][1] for partition in places}
        try:
            for fetched in until(tail, todo, silence_s=SILENCE_S, clock=self._clock):
                places[fetched.partition] = fetched.next_offset
                yield fetched
        finally:
            tail.close()
        if todo:
            partition = min(todo)
            words = f"{partition}: nothing comes from offset {places[partition]} on"
            raise UnavailableError(words, fix="see whether the broker is well")

    def _check_range(self, partition: Partition, start: int, stop: int) -> None:
        places, stops = {partition: Position(start)}, {partition: Position(stop)}
        check(find_losses(self._log, places, topic_ids={}, stops=stops, clock=self._clock), fix=NOT_ALL_THERE)

    def _cut(self, cuts: Sequence[Cut], *, schema: Schema) -> None:
        """Give the rows of `cuts`, which follow each other closely in one partition, to each of them."""
        partition, start, end = cuts[0].item.partition, cuts[0].item.start, max(cut.item.end for cut in cuts)
        # Whether a registry has a schema changes with time; what became of a record by then does not.
        bad = {reject.offset: reject.reason for cut in cuts for reject in cut.item.rejects if may_pass(reject.reason)}
        cursor = self._cursor(partition, start, end=end, schema=schema, bad=bad)
        for _, records, next_offset in self._read(partition, start.offset, end.offset + (end.row > 0)):
            for block in cursor.take(records, next_offset=next_offset):
                for cut in cuts:
                    cut.add(block)
        if self._lookback is not None:
            self._lookback.keep(cursor, schema=schema)


def _close_by(offsets: Sequence[int]) -> Sequence[int]:
    """The first of rising offsets, and those that are rather read over than sought from there."""
    count = next((i for i in range(1, len(offsets)) if offsets[i] - offsets[i - 1] > SPAN_GAP), len(offsets))
    return offsets[:count]
