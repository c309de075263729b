"""Files as a log: sorted by name and read one behind the other, with exact positions.

An offset is a place among the bytes of all files of a partition: where the record's file begins, and the record's offset in it. So a
partition ends where its files' sizes say, and what is left is told in bytes.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import pyarrow as pa

from dtrain.clock import Clock
from dtrain.data.block import RawRecord
from dtrain.errors import CorruptError, InputError, NotFoundError, StateError, UnavailableError
from dtrain.spec.job import FilesSpec
from dtrain.steplog.positions import Partition, Positions
from dtrain.stream.files_formats import Found, open_records
from dtrain.stream.files_places import FilePlace, check_same, gone
from dtrain.stream.log import Bounds, Fetched, File, Identity, Letter, Log

MAX_FILES = 100_000
"""How many a job bears: every checkpoint names them."""

Read = Callable[[File, int], Iterator[Found]]
"""The records of a file at or behind an offset in it."""


class Place(NamedTuple):
    """Where an offset of a lane stands: in which file, where that begins in the lane, and where in it."""

    file: File
    begin: int
    at: int


class Lane:
    """The files of one partition, one behind the other."""

    def __init__(self, partition: Partition, files: Sequence[File]) -> None:
        self.partition = partition
        self._files = [file for file in files if file.size]
        self._begins = [0, *accumulate(file.size for file in self._files)]

    @property
    def end(self) -> int:
        """The offset behind all files."""
        return self._begins[-1]

    def place(self, offset: int) -> Place:
        """What stands at `offset`, which is before the end."""
        index = bisect_right(self._begins, offset) - 1
        return Place(self._files[index], self._begins[index], offset - self._begins[index])

    def files_from(self, offset: int) -> list[File]:
        """The files that hold something at or behind `offset`."""
        return self._files[bisect_right(self._begins, offset) - 1 :]


class FileLog:
    """The `Log` of files.

    Args:
        spec: which files.
        place: where they are.
        letters: takes the bad records; None for nobody.
        clock: for waiting.
    """

    def __init__(self, spec: FilesSpec, place: FilePlace, *, letters: Log | None, clock: Clock) -> None:
        self._spec = spec
        self._place = place
        self._letters = letters
        self._clock = clock
        self._files: tuple[File, ...] = ()
        self._lanes: dict[Partition, Lane] = {}
        self.columns: list[str] | None = None
        """Which tails read where files can be read by the column; None for all."""

    def recall(self, files: Sequence[File]) -> None:
        """The files are these from now on, whatever others there are."""
        self._files = tuple(files)
        count = min(self._spec.at_a_time, len(self._files))
        partitions = [Partition(self._spec.files, number) for number in range(count)]
        self._lanes = {partition: Lane(partition, self._files[partition.number :: count]) for partition in partitions}

    def describe(self) -> Identity:
        """See `Log.describe`; found once, so that files which come later are not among them."""
        digest = hashlib.sha256(repr([tuple(file) for file in self.files]).encode())
        topics = {partition.topic for partition in self.lanes}
        return Identity(dict.fromkeys(topics, digest.hexdigest()[:22]), dict.fromkeys(self.lanes, 0), self.files)

    def bounds(self, partitions: Collection[Partition] | None = None) -> dict[Partition, Bounds]:
        """See `Log.bounds`."""
        return {p: Bounds(0, lane.end) for p, lane in self.lanes.items() if partitions is None or p in partitions}

    def offsets_at(self, time_ms: int) -> dict[Partition, int | None]:  # noqa: ARG002 - as the protocol has it
        """See `Log.offsets_at`; files know no times."""
        raise StateError("files have no times", fix="name the files that are meant")

    def tail(self, offsets: Mapping[Partition, int], *, is_brief: bool = False) -> FileTail:  # noqa: ARG002 - as the protocol has it
        """See `Log.tail`."""
        lanes, read = self.lanes, partial(self._read, columns=self.columns)
        readers = {p: LaneReader(lanes[p], at, read) for p, at in offsets.items()}
        return FileTail(readers, topic_ids=self.describe().topic_ids, clock=self._clock)

    def send(self, letters: Sequence[Letter], *, to_topic: str) -> None:
        """See `Log.send`."""
        if self._letters is None:
            raise StateError("bad records of files go to a Kafka topic", fix="write `source.bootstrap`")
        self._letters.send(letters, to_topic=to_topic)

    def commit(self, offsets: Mapping[Partition, int], *, group: str) -> None:
        """See `Log.commit`: no lag tool looks at files."""

    def close(self) -> None:
        """See `Log.close`."""
        if self._letters is not None:
            self._letters.close()

    @property
    def files(self) -> tuple[File, ...]:
        """All of them, in the order in which they are read."""
        if not self._files:
            self.recall(self._found())
        return self._files

    @property
    def lanes(self) -> dict[Partition, Lane]:
        """The files by partition, which take turns in choosing them."""
        return self._lanes if self.files else {}

    def check(self, positions: Positions) -> None:
        """Return if every file that is not yet trained is what it was. Raises `DataLossError`, which names the first that is not."""
        found = {file.name: file for file in self._place.find()}
        for partition, lane in self.lanes.items():
            for file in lane.files_from(positions[partition].offset) if partition in positions else ():
                if file.name not in found:
                    raise gone(file.name)
                check_same(file, found[file.name])

    def _found(self) -> list[File]:
        found = self._place.find()
        if not found:
            raise NotFoundError(f"no file is {self._spec.files}", fix="correct its name, or put it there")
        if len(found) > MAX_FILES:
            raise InputError(f"{len(found):,} files are {self._spec.files}", fix=f"join them: {MAX_FILES:,} are borne at most")
        empty = next((file for file in found if not file.size and self._spec.file_format in ("parquet", "arrow")), None)
        if empty is not None:
            raise CorruptError(f"{empty.name} is empty, which no {self._spec.file_format} file is", fix="write it again")
        return found

    def _read(self, file: File, at: int, *, columns: Sequence[str] | None) -> Iterator[Found]:
        """See `Records.read`.

        Raises:
            DataLossError: the file is gone, or another one now.
            CorruptError: it is not of its format.
            UnavailableError: it cannot be read now.
        """
        source = self._place.open(file)
        try:
            records = open_records(source, size=file.size, file_format=self._spec.file_format, columns=columns)
            for found in records.read(at):
                self._place.check(file)  # a file that is written over while it is open would be read half old, half new
                yield found
        except (pa.ArrowException, OSError, EOFError, ValueError, KeyError) as error:
            reason = str(error).partition("\n")[0][:200]
            if isinstance(error, OSError) and error.errno:
                raise UnavailableError(f"cannot read {file.name}: {reason}", fix="look at that disk") from error
            self._place.open(file).close()  # or it is another one by now
            fix = "look at the file; once it was written anew, a new job can train it"
            raise CorruptError(f"{file.name} cannot be read as {self._spec.file_format}: {reason}", fix=fix) from error
        finally:
            source.close()


class LaneReader:
    """Where a tail stands in one partition."""

    def __init__(self, lane: Lane, at: int, read: Read) -> None:
        self._lane = lane
        self._at = at
        self._read = read
        self._coming: Iterator[Found] | None = None
        self.is_paused = False

    @property
    def end(self) -> int:
        """Behind the last file."""
        return self._lane.end

    def close(self) -> None:
        """Free what is held."""
        self._coming = None

    def next(self) -> Fetched | None:
        """What comes next; None at the end."""
        if self._at >= self._lane.end:
            return None
        file, begin, at = self._lane.place(self._at)
        if self._coming is None:
            self._coming = self._read(file, at)
        try:
            found = next(self._coming, None)
        except BaseException:
            self._coming = None  # who asks again begins again here
            raise
        if found is None:
            self._coming, self._at = None, begin + file.size
            return Fetched(self._lane.partition, (), self._at)
        records = [RawRecord(begin + offset, key, value, time_ms, crc) for offset, key, value, time_ms, crc in found[0]]
        self._at = begin + found[1]
        if found[1] == file.size:
            self._coming = None
        return Fetched(self._lane.partition, records, self._at)


class FileTail:
    """The `Tail` of files."""

    def __init__(self, readers: Mapping[Partition, LaneReader], *, topic_ids: Mapping[str, str], clock: Clock) -> None:
        self._by_partition = readers
        self._readers = list(readers.values())
        self._turn = -1
        self._topic_ids = topic_ids
        self._clock = clock

    def poll(self, *, max_wait_s: float) -> Sequence[Fetched]:
        """See `Tail.poll`: a few records of one partition, and of the next one at the next call; so an error loses none."""
        for _ in self._readers:
            self._turn += 1
            reader = self._readers[self._turn % len(self._readers)]
            if not reader.is_paused and (fetched := reader.next()) is not None:
                return [fetched]
        self._clock.sleep(max_wait_s)
        return []

    def pause(self, partition: Partition) -> None:
        """See `Tail.pause`."""
        self._by_partition[partition].is_paused = True

    def resume(self, partition: Partition) -> None:
        """See `Tail.resume`."""
        self._by_partition[partition].is_paused = False

    def end_offsets(self) -> Mapping[Partition, int]:
        """See `Tail.end_offsets`."""
        return {partition: reader.end for partition, reader in self._by_partition.items()}

    def topic_ids(self) -> Mapping[str, str]:
        """See `Tail.topic_ids`."""
        return self._topic_ids

    def close(self) -> None:
        """See `Tail.close`."""
        for reader in self._readers:
            reader.close()
