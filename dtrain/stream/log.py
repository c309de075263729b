"""Logs: topics' raw records by offset, the one thing that Kafka and its twin in memory do differently."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from dtrain.clock import Clock
from dtrain.data.block import RawRecord
from dtrain.steplog.positions import Partition

VALUE_IN = "dtrain-value-in"
"""Header of a letter without a value: the coordinate, which is the key, of the letter that has the record's."""


class File(NamedTuple):
    """One file that is read, as it was when the job began.

    Args:
        name: its path or URL.
        size: in bytes.
        version: another one when it was written again: an ETag, or the time of the last write.
    """

    name: str
    size: int
    version: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Which topics these are, and which files.

    Args:
        topic_ids: topic → the broker's id of it; another after the topic was recreated.
        leader_epochs: partition → epoch of its leader, for people who look into a data loss.
        files: in the order in which they are read.
        leaderless: partitions that have no leader now, so that nothing else can be told of them, and nothing read.
    """

    topic_ids: Mapping[str, str]
    leader_epochs: Mapping[Partition, int] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    leaderless: frozenset[Partition] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """The identity as a manifest keeps it."""
        epochs = {str(p): e for p, e in sorted(self.leader_epochs.items())}
        topic_ids = dict(sorted(self.topic_ids.items()))
        return {"topic_ids": topic_ids, "leader_epochs": epochs, "files": [list(file) for file in self.files]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, later: Mapping[str, str] | None = None) -> Identity:
        """The identity that `to_json` wrote, with the topics that came `later` or were made anew."""
        epochs = {Partition.parse(p): e for p, e in value["leader_epochs"].items()}
        return cls({**value["topic_ids"], **(later or {})}, epochs, tuple(File(*file) for file in value.get("files", ())))


class Fetched(NamedTuple):
    """Records of one partition, in order; `next_offset` is where the next ones begin, gaps passed over."""

    partition: Partition
    records: Sequence[RawRecord]
    next_offset: int


class Bounds(NamedTuple):
    """The offsets of a partition that can be read, [begin, end); with `read_committed` the end is the last stable offset."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A bad record on its way to a topic of its own, or repaired on its way back; `partition`: None for that of its key."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    partition: int | None = None

    @property
    def num_bytes(self) -> int:
        """About what it takes in memory."""
        return 512 + len(self.key or b"") + len(self.value or b"") + sum(len(value) for _, value in self.headers)


class OutOfRangeError(Exception):
    """A tail stands at an offset that the log has not, or not any more; whoever reads finds out why."""


class Tail(Protocol):
    """Raw records in order, from one offset of each of some partitions on. Not safe to call from several threads."""

    def poll(self, *, max_wait_s: float) -> Sequence[Fetched]:
        """What has come of partitions that are not paused, or nothing after `max_wait_s`. A partition comes without records
        when only its next offset has moved.

        Raises:
            OutOfRangeError: nothing can be read at some partition's next offset.
            UnavailableError: the broker has not answered for too long.
        """
        ...

    def pause(self, partition: Partition) -> None:
        """Nothing more comes of `partition`."""
        ...

    def resume(self, partition: Partition) -> None:
        """What follows comes of `partition` again, from where it was paused."""
        ...

    def end_offsets(self) -> Mapping[Partition, int]:
        """Per partition the newest known end of what can be read, from when it is known to have a leader on. Does not block."""
        ...

    def topic_ids(self) -> Mapping[str, str]:
        """The ids of the tail's topics as last heard, of those that the broker knows now. Does not block."""
        ...

    def close(self) -> None:
        """Free what the tail holds. May be called twice."""
        ...


class LetterBox(Protocol):
    """Topics of letters. Every method may raise `UnavailableError`."""

    def letters(self, topic: str) -> Iterable[Letter]:
        """Every letter that `topic` holds now, in order within each partition, headers included."""
        ...

    def send(self, letters: Sequence[Letter], *, to_topic: str) -> None:
        """See `Log.send`."""
        ...


class Log(Protocol):
    """The topics that a spec means. Every method may raise `UnavailableError`, after ten seconds or so."""

    def describe(self) -> Identity:
        """Those topics that are there, with the leader epoch of every partition that the spec means. Never makes one."""
        ...

    def bounds(self, partitions: Collection[Partition] | None = None) -> dict[Partition, Bounds]:
        """What can be read of each partition of `describe` now, or of those of them that are meant; each of these has a leader, or gets
        one soon."""
        ...

    def offsets_at(self, time_ms: int) -> dict[Partition, int | None]:
        """Per partition the first offset with a timestamp, in milliseconds since 1970, of `time_ms` or later; None without."""
        ...

    def tail(self, offsets: Mapping[Partition, int], *, is_brief: bool = False) -> Tail:
        """A tail from `offsets` on; the caller closes it. A brief one is for a few records: little is fetched at a time."""
        ...

    def send(self, letters: Sequence[Letter], *, to_topic: str) -> None:
        """Write `letters`; all are acknowledged when the call returns."""
        ...

    def commit(self, offsets: Mapping[Partition, int], *, group: str) -> None:
        """Store `offsets` as those of a consumer group."""
        ...

    def close(self) -> None:
        """Free what the log holds. May be called twice."""
        ...


def until(tail: Tail, stops: dict[Partition, int], *, silence_s: float, clock: Clock) -> Iterator[Fetched]:
    """What comes of `tail` until every partition of `stops` is there; or has been silent for `silence_s`, and then some are left in `stops`.

    Args:
        tail: of these partitions.
        stops: one that is there is taken out; so may the caller do who has enough of it.
        silence_s: for which nothing comes; what the caller does with what came is not counted.
        clock: the log's.
    """
    heard_at_s = clock.monotonic_s()
    while stops and clock.monotonic_s() - heard_at_s <= silence_s:
        came = tail.poll(max_wait_s=0.2)
        for fetched in came:
            yield fetched
            partition = fetched.partition
            if fetched.next_offset >= stops.get(partition, 0):
                stops.pop(partition, None)
                tail.pause(partition)
        if came:
            heard_at_s = clock.monotonic_s()
