"""The twin of Kafka in memory: topics that a test fills, cuts, and makes anew, and the source over them."""

from __future__ import annotations

import time
import uuid
from bisect import bisect_left
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from threading import Condition

from dtrain.clock import Clock, SystemClock
from dtrain.data.block import RawRecord
from dtrain.errors import UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition
from dtrain.stream.log import Bounds, Fetched, Identity, Letter, OutOfRangeError
from dtrain.stream.selection import is_chosen, topics_of
from dtrain.stream.source import Source

POLL_RECORDS = 1000
"""Records of a partition that a tail hands out at a time."""


class MemoryTopic:
    """A topic of one process. Safe to write to while others read.

    Args:
        name: the topic's.
        partitions: how many.
    """

    def __init__(self, name: str, *, partitions: int = 1) -> None:
        self.name = name
        self.changed = Condition()
        self.partitions = [Partition(name, number) for number in range(partitions)]
        self.leaderless: set[Partition] = set()
        """Nothing can be told or read of these now."""
        self.recreate()

    def add_partitions(self, number: int) -> None:
        """Make so many more."""
        with self.changed:
            new = [Partition(self.name, n) for n in range(len(self.partitions), len(self.partitions) + number)]
            self.records.update({partition: [] for partition in new})
            self.bounds.update(dict.fromkeys(new, Bounds(0, 0)))
            self.partitions += new
            self.changed.notify_all()

    def recreate(self) -> None:
        """Delete the topic and make another one of the same name, empty."""
        with self.changed:
            self.topic_id = str(uuid.uuid4())
            self.records: dict[Partition, list[RawRecord]] = {partition: [] for partition in self.partitions}
            self.bounds = {partition: Bounds(0, 0) for partition in self.partitions}
            self.changed.notify_all()

    def append(
        self, value: bytes | None, *, partition: int = 0, key: bytes | None = None, timestamp_ms: int = 0, gap: int = 0
    ) -> int:
        """Write a record `gap` offsets behind the end, which transactions' markers and compaction leave; its offset."""
        which = self.partitions[partition]
        with self.changed:
            begin, end = self.bounds[which]
            self.records[which].append(RawRecord(end + gap, key, value, timestamp_ms))
            self.bounds[which] = Bounds(begin, end + gap + 1)
            self.changed.notify_all()
        return end + gap

    def extend(self, num_offsets: int, *, partition: int = 0) -> None:
        """Move the end over `num_offsets` offsets without records."""
        which = self.partitions[partition]
        with self.changed:
            begin, end = self.bounds[which]
            self.bounds[which] = Bounds(begin, end + num_offsets)
            self.changed.notify_all()

    def delete_before(self, offset: int, *, partition: int = 0) -> None:
        """Delete the records before `offset`, as retention does."""
        which = self.partitions[partition]
        with self.changed:
            self.bounds[which] = Bounds(offset, self.bounds[which].end)
            self.records[which] = self.read(which, offset)

    def truncate(self, offset: int, *, partition: int = 0) -> None:
        """Lose the records from `offset` on, as an unclean election does."""
        which = self.partitions[partition]
        with self.changed:
            self.bounds[which] = Bounds(self.bounds[which].begin, offset)
            self.records[which] = [record for record in self.records[which] if record.offset < offset]

    def read(self, partition: Partition, offset: int) -> list[RawRecord]:
        """The records from `offset` on."""
        records = self.records[partition]
        return records[bisect_left(records, offset, key=lambda record: record.offset) :]


class MemorySource(Source):
    """Topics in memory as a `Source`.

    Args:
        spec: what to read; `bootstrap` and `isolation` mean nothing here.
        topics: by name; bad records' topics are added to them.
        clock: for waiting.
    """

    def __init__(self, spec: SourceSpec, topics: MutableMapping[str, MemoryTopic], *, clock: Clock | None = None) -> None:
        self.log = MemoryLog(spec, topics)
        super().__init__(spec, self.log, clock=clock or SystemClock())


class MemoryLog:
    """The `Log` of topics in memory; what was committed for each group, and what was sent to each topic, is kept to be seen."""

    def __init__(self, spec: SourceSpec, topics: MutableMapping[str, MemoryTopic]) -> None:
        self._spec = spec
        self._topics = topics
        self.committed: dict[str, dict[Partition, int]] = {}
        self.sent: dict[str, list[Letter]] = {}

    def describe(self) -> Identity:
        """See `Log.describe`."""
        leaderless = frozenset(partition for partition in self._partitions() if self._is_leaderless(partition))
        topic_ids = {topic.name: topic.topic_id for topic in self._chosen()}
        return Identity(topic_ids, dict.fromkeys(self._partitions(), 0), leaderless=leaderless)

    def bounds(self, partitions: Collection[Partition] | None = None) -> dict[Partition, Bounds]:
        """See `Log.bounds`."""
        meant = [p for p in self._partitions() if partitions is None or p in partitions]
        if absent := sorted(filter(self._is_leaderless, meant)):
            raise UnavailableError(f"{absent[0]} has no leader", fix="see whether its broker is well")
        return {partition: self._topics[partition.topic].bounds[partition] for partition in meant}

    def offsets_at(self, time_ms: int) -> dict[Partition, int | None]:
        """See `Log.offsets_at`."""
        records = {partition: self._topics[partition.topic].records[partition] for partition in self._partitions()}
        return {p: next((r.offset for r in found if r.timestamp_ms >= time_ms), None) for p, found in records.items()}

    def tail(self, offsets: Mapping[Partition, int], *, is_brief: bool = False) -> MemoryTail:  # noqa: ARG002 - as the protocol has it
        """See `Log.tail`."""
        return MemoryTail(self._topics, offsets)

    def send(self, letters: Sequence[Letter], *, to_topic: str) -> None:
        """See `Log.send`; `sent` keeps the headers, which a topic in memory has not."""
        self.sent.setdefault(to_topic, []).extend(letters)
        topic = self._topics.setdefault(to_topic, MemoryTopic(to_topic))
        for letter in letters:
            topic.append(letter.value, key=letter.key, partition=letter.partition or 0)

    def letters(self, topic: str) -> Sequence[Letter]:
        """See `LetterBox.letters`."""
        return tuple(self.sent.get(topic, ()))

    def commit(self, offsets: Mapping[Partition, int], *, group: str) -> None:
        """See `Log.commit`."""
        self.committed.setdefault(group, {}).update(offsets)

    def close(self) -> None:
        """See `Log.close`."""

    def _is_leaderless(self, partition: Partition) -> bool:
        return partition in self._topics[partition.topic].leaderless

    def _chosen(self) -> list[MemoryTopic]:
        return [self._topics[name] for name in topics_of(self._spec, self._topics)]

    def _partitions(self) -> list[Partition]:
        return [p for topic in self._chosen() for p in topic.partitions if is_chosen(self._spec, p)]


class MemoryTail:
    """The `Tail` of topics in memory."""

    def __init__(self, topics: Mapping[str, MemoryTopic], offsets: Mapping[Partition, int]) -> None:
        self._topics = topics
        self._next = dict(offsets)
        self._paused: set[Partition] = set()

    def poll(self, *, max_wait_s: float) -> Sequence[Fetched]:
        """See `Tail.poll`."""
        deadline_s = time.monotonic() + max_wait_s
        while not (found := self._fetch()) and (left_s := deadline_s - time.monotonic()) > 0:
            changed = self._topics[next(iter(self._next)).topic].changed
            with changed:
                changed.wait(min(left_s, 0.01))
        for fetched in found:
            self._next[fetched.partition] = fetched.next_offset
        return found

    def pause(self, partition: Partition) -> None:
        """See `Tail.pause`."""
        self._paused.add(partition)

    def resume(self, partition: Partition) -> None:
        """See `Tail.resume`."""
        self._paused.discard(partition)

    def end_offsets(self) -> Mapping[Partition, int]:
        """See `Tail.end_offsets`."""
        topics = {partition: self._topics[partition.topic] for partition in self._next if partition.topic in self._topics}
        return {p: topic.bounds[p].end for p, topic in topics.items() if p not in topic.leaderless}

    def topic_ids(self) -> Mapping[str, str]:
        """See `Tail.topic_ids`."""
        names = {partition.topic for partition in self._next}
        return {name: self._topics[name].topic_id for name in names if name in self._topics}

    def close(self) -> None:
        """See `Tail.close`."""

    def _fetch(self) -> list[Fetched]:
        found = []
        for partition, offset in self._next.items():
            topic = self._topics.get(partition.topic)
            if partition in self._paused or topic is None or partition in topic.leaderless:
                continue
            with topic.changed:
                begin, end = topic.bounds[partition]
                if not begin <= offset <= end:
                    raise OutOfRangeError(f"{partition}: {offset} is not in [{begin}, {end}]")
                if offset < end:
                    records = topic.read(partition, offset)
                    is_whole = len(records) <= POLL_RECORDS
                    next_offset = end if is_whole else records[POLL_RECORDS - 1].offset + 1
                    found.append(Fetched(partition, records[:POLL_RECORDS], next_offset))
        return found
