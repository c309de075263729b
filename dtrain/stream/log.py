"""Logs: a topic's raw records by offset, the one thing that Kafka and its twin in memory do differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from dtrain.data.block import RawRecord
from dtrain.steplog.positions import Partition
from dtrain.stream.source import Identity


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
    """A bad record on its way to a topic of its own."""

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


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
        """Per partition the newest known end of what can be read. Does not block."""
        ...

    def topic_id(self) -> str | None:
        """The topic's id as last heard; None when the broker knows no such topic now. Does not block."""
        ...

    def close(self) -> None:
        """Free what the tail holds. May be called twice."""
        ...


class Log(Protocol):
    """One topic. Every method may raise `UnavailableError`, after ten seconds or so, or `NotFoundError`: no such topic."""

    def describe(self) -> Identity:
        """Which topic this is, with the leader epoch of every partition. Never makes one."""
        ...

    def bounds(self) -> dict[Partition, Bounds]:
        """What can be read of each partition now."""
        ...

    def offsets_at(self, time_ms: int) -> dict[Partition, int | None]:
        """Per partition the first offset with a timestamp, in milliseconds since 1970, of `time_ms` or later; None without."""
        ...

    def tail(self, offsets: Mapping[Partition, int]) -> Tail:
        """A tail from `offsets` on; the caller closes it."""
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
