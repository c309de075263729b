"""Backfill: files as a source; and history then live, which is files and behind them a topic."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa

from dtrain.clock import Clock
from dtrain.data.arrow_messages import arrow_row
from dtrain.data.block import RawRecord
from dtrain.data.csv_messages import csv_row
from dtrain.data.formats import file_reader_of
from dtrain.data.messages import ReadRows, Rows
from dtrain.data.schema import Schema
from dtrain.spec.job import FilesSpec, SourceSpec
from dtrain.steplog.moves import Change
from dtrain.steplog.positions import Mark, Partition, Position, Positions
from dtrain.steplog.ranges import RowRange
from dtrain.stream import lookback
from dtrain.stream.feed import Feed
from dtrain.stream.files import FileLog, Lane
from dtrain.stream.files_formats import TOO_LONG
from dtrain.stream.log import Bounds, Fetched, Identity, Letter, Log, Tail
from dtrain.stream.source import Source

NEVER = Position(2**63 - 1)
"""The end of a partition that has none, where others have one."""


class FileSource(Source):
    """Files as a `Source`; behind them a topic, if there is one.

    The files' partitions stand beside the topic's. Whoever cuts holds the topic's until the files are trained (`Cutter`).

    Args:
        spec: what to read.
        history: which files, and how.
        files: the log over them.
        live: the topic; None for files alone.
        clock: for waiting.
    """

    def __init__(self, spec: SourceSpec, history: FilesSpec, files: FileLog, *, live: Source | None, clock: Clock) -> None:
        super().__init__(spec, files if live is None else FilesThenTopic(files, live._log, clock=clock), clock=clock)
        self._files = files
        self._live = live
        self._file_format = history.file_format

    def resolve_start(self) -> dict[Partition, Position]:
        """See `Source.resolve_start`: the files' beginning, and the topic's `start`."""
        first = {partition: Position(0) for partition in self._files.lanes}
        return first if self._live is None else first | self._live.resolve_start()

    def resolve_end(self) -> dict[Partition, Position] | None:
        """See `Source.resolve_end`: files end where they end."""
        ends = {partition: Position(lane.end) for partition, lane in self._files.lanes.items()}
        if self._live is None:
            return ends
        live_ends = self._live.resolve_end()
        return ends | (dict.fromkeys(self._live._log.bounds(), NEVER) if live_ends is None else live_ends)

    def recall(self, identity: Identity) -> None:
        """See `Source.recall`: the files are those that there were when the job began."""
        self._files.recall(identity.files)

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
        """See `Source.follow`. A file that is trained may be gone; any other must be what it was."""
        if identity is not None:
            self.recall(identity)
        self._files.columns = [field.name for field in self.stream_schema(schema).fields]
        self._files.check(positions)
        return super().follow(
            positions, schema=schema, ends=ends, identity=identity, marks=self._checked(marks or {}, positions), bad=bad
        )

    def discover(self, known: Collection[Partition], *, identity: Identity) -> Change:
        """See `Source.discover`: the topic's. Files that come later are none of the job's."""
        self.recall(identity)
        return super().discover(known, identity=identity)

    def gaps(
        self, positions: Positions, *, ends: Positions | None, identity: Identity, marks: Mapping[Partition, Mark]
    ) -> Change:
        """See `Source.gaps`: the topic's; files that changed are no gap."""
        self.recall(identity)
        self._files.check(positions)
        return super().gaps(positions, ends=ends, identity=identity, marks=self._checked(marks, positions))

    def fetch(self, ranges: Sequence[RowRange], *, schema: Schema) -> list[pa.RecordBatch]:
        """See `Source.fetch`."""
        self._files.columns = [field.name for field in self.stream_schema(schema).fields]
        return super().fetch(ranges, schema=schema)

    def send_rejects(self, ranges: Sequence[RowRange], *, to_topic: str, job_id: str) -> int:
        """See `Source.send_rejects`; of a file the bad row alone is sent, with all of its columns."""
        self._files.columns = None
        return super().send_rejects(ranges, to_topic=to_topic, job_id=job_id)

    def commit(self, positions: Positions, *, group: str) -> None:
        """See `Source.commit`: the topic's."""
        if self._live is not None:
            self._live.commit({p: at for p, at in positions.items() if p not in self._files.lanes}, group=group)

    def _read_back(self, partition: Partition, start: int, stop: int) -> Iterator[Fetched]:
        """See `_read`; `start` may be in the middle of a record. Where records begin can be told from the file's head alone in some
        formats."""
        lane, begin = self._files.lanes.get(partition), start
        if lane is not None and start < lane.end and self._file_format in ("csv", "arrow"):
            begin = lane.place(start).begin
        for _, records, next_offset in self._read(partition, begin, stop):
            if next_offset > start:
                yield Fetched(partition, [record for record in records if record.offset >= start], next_offset)

    def _first_of(self, partition: Partition) -> int:
        return lookback.FIRST_BYTES if partition in self._files.lanes else super()._first_of(partition)

    def _checked(self, marks: Mapping[Partition, Mark], positions: Positions) -> dict[Partition, Mark]:
        return {partition: mark for partition, mark in marks.items() if self._is_checked(partition, mark, positions)}

    def _is_checked(self, partition: Partition, mark: Mark, positions: Positions) -> bool:
        """Whether a mark has to be looked at: always in a topic; of files, in the one that is not yet trained."""
        lane, at = self._files.lanes.get(partition), positions[partition].offset
        return lane is None or (at < lane.end and lane.place(mark.offset).begin == lane.place(at).begin)

    def _reader_of(self, partition: Partition) -> ReadRows:
        lane = self._files.lanes.get(partition)
        if lane is None:
            return super()._reader_of(partition)
        return _naming(lane, file_reader_of(self._file_format), has_bytes=self._file_format in ("csv", "jsonl"))

    def _excerpt(self, partition: Partition, record: RawRecord, row: int) -> bytes | None:
        if record.value is None or partition not in self._files.lanes:
            return super()._excerpt(partition, record, row)
        match self._file_format:
            case "arrow" | "parquet":
                return arrow_row(record.value, row)
            case "csv":
                return csv_row(record.value, row)
        return record.value


def _naming(lane: Lane, read: ReadRows, *, has_bytes: bool) -> ReadRows:
    """The same rows; the reasons of bad ones name the file, and of text the place in it."""

    def where(offset: int) -> str:
        file, _, at = lane.place(offset)
        return f"{file.name} from byte {at} on" if has_bytes else file.name

    def read_rows(records: Sequence[RawRecord], schema: Schema) -> Rows:
        rows = read(records, schema)
        for key, why in rows.rejects.items():
            record = records[key[0]]
            what = "a line of more than 16 MiB" if has_bytes and record.value == TOO_LONG else why
            rows.rejects[key] = f"{what}, in {where(record.offset)}"
        return rows

    return read_rows


class FilesThenTopic:
    """The `Log` of files and of a topic."""

    def __init__(self, files: FileLog, topic: Log, *, clock: Clock) -> None:
        self._files = files
        self._topic = topic
        self._clock = clock

    def describe(self) -> Identity:
        """See `Log.describe`."""
        files, topic = self._files.describe(), self._topic.describe()
        return Identity({**files.topic_ids, **topic.topic_ids}, topic.leader_epochs, files.files, topic.leaderless)

    def bounds(self, partitions: Collection[Partition] | None = None) -> dict[Partition, Bounds]:
        """See `Log.bounds`."""
        return self._files.bounds(partitions) | self._topic.bounds(partitions)

    def offsets_at(self, time_ms: int) -> dict[Partition, int | None]:
        """See `Log.offsets_at`: the topic's."""
        return self._topic.offsets_at(time_ms)

    def tail(self, offsets: Mapping[Partition, int], *, is_brief: bool = False) -> Tail:
        """See `Log.tail`."""
        files = {partition: offset for partition, offset in offsets.items() if partition in self._files.lanes}
        topic = {partition: offset for partition, offset in offsets.items() if partition not in files}
        if not files:
            return self._topic.tail(topic, is_brief=is_brief)
        tails: list[tuple[Tail, set[Partition]]] = [(self._files.tail(files, is_brief=is_brief), set(files))]
        if topic:
            tails.append((self._topic.tail(topic, is_brief=is_brief), set(topic)))
        return JoinedTail(tails, clock=self._clock)

    def send(self, letters: Sequence[Letter], *, to_topic: str) -> None:
        """See `Log.send`."""
        self._topic.send(letters, to_topic=to_topic)

    def commit(self, offsets: Mapping[Partition, int], *, group: str) -> None:
        """See `Log.commit`: the topic's."""
        self._topic.commit(offsets, group=group)

    def close(self) -> None:
        """See `Log.close`."""
        self._files.close()
        self._topic.close()


class JoinedTail:
    """A tail of files, and perhaps one of a topic behind it, as one; whose partitions are all paused is left alone."""

    def __init__(self, tails: Sequence[tuple[Tail, set[Partition]]], *, clock: Clock) -> None:
        self._tails = tails
        self._clock = clock
        self._paused: set[Partition] = set()

    def poll(self, *, max_wait_s: float) -> Sequence[Fetched]:
        """See `Tail.poll`: of the first that has something; waits for the last one alone, which is the topic."""
        going = [tail for tail, partitions in self._tails if partitions - self._paused]
        for tail in going:
            if fetched := tail.poll(max_wait_s=max_wait_s if tail is going[-1] else 0):
                return fetched
        if not going:
            self._clock.sleep(max_wait_s)
        return []

    def pause(self, partition: Partition) -> None:
        """See `Tail.pause`."""
        self._paused.add(partition)
        self._owner(partition).pause(partition)

    def resume(self, partition: Partition) -> None:
        """See `Tail.resume`."""
        self._paused.discard(partition)
        self._owner(partition).resume(partition)

    def end_offsets(self) -> Mapping[Partition, int]:
        """See `Tail.end_offsets`."""
        return {partition: end for tail, _ in self._tails for partition, end in tail.end_offsets().items()}

    def topic_ids(self) -> Mapping[str, str]:
        """See `Tail.topic_ids`."""
        return {name: topic_id for tail, _ in self._tails for name, topic_id in tail.topic_ids().items()}

    def close(self) -> None:
        """See `Tail.close`."""
        for tail, _ in self._tails:
            tail.close()

    def _owner(self, partition: Partition) -> Tail:
        return next(tail for tail, partitions in self._tails if partition in partitions)
