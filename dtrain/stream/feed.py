"""Feeds: blocks in order, from the raw records of a log."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dtrain.clock import Clock
from dtrain.data.block import Block
from dtrain.data.messages import BLOCK_BYTES, REJECT_BYTES
from dtrain.errors import UnavailableError
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.cursor import Cursor
from dtrain.stream.log import Log, OutOfRangeError, Tail
from dtrain.stream.losses import WAYS_OUT, check, find_losses

GONE_S = 15.0
"""How long the broker may know no such topic before that counts as deleted."""

_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Late:
    """A partition that has no leader yet.

    Args:
        offset: where it is to be read from.
        admit: called once it has one: its cursor. Raises what `Source.follow` raises.
    """

    offset: int
    admit: Callable[[], Cursor]


class Feed:
    """Blocks in order, from given positions on. Not safe to call from several threads.

    Args:
        log: of the partitions.
        cursors: where each of them stands.
        late: those that come later, as they get a leader: whoever waits for them keeps nobody from the others.
        topic_ids: what the topics must be, by name.
        clock: for how long a topic is not known.
    """

    def __init__(
        self,
        log: Log,
        cursors: Sequence[Cursor],
        *,
        late: Mapping[Partition, Late] | None = None,
        topic_ids: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self._log = log
        self._cursors = {cursor.partition: cursor for cursor in cursors}
        self._late = dict(late or {})
        self._clock = clock
        offsets = {cursor.partition: cursor.position.offset for cursor in cursors}
        offsets |= {partition: late.offset for partition, late in self._late.items()}
        self._topic_ids = {partition.topic: topic_ids[partition.topic] for partition in offsets}
        self._known_at_s = dict.fromkeys(self._topic_ids, clock.monotonic_s())
        self._tail: Tail = log.tail(offsets)
        self._held: frozenset[Partition] = frozenset()
        self._coming: deque[tuple[Partition, Iterator[Block]]] = deque()
        self._error: UnavailableError | None = None
        for partition in offsets:
            if partition in self._late or self._cursors[partition].is_done:
                self._tail.pause(partition)
        self._news = [f"no leader for {_names(self._late)}: read as soon as there is one"] if self._late else []

    def poll(self, *, max_wait_s: float) -> Sequence[Block]:
        """Blocks that have come, about `BLOCK_BYTES` of them at most, or none after `max_wait_s`.

        Per partition each block starts where the one before ended, the first at the feed's positions; rows at or behind
        the partition's end are never in a block. A block may have no rows: its end has moved over gaps or bad records.

        Raises:
            DataLossError: retention has overtaken a position, or the topic is shorter than it was.
            UnavailableError: the broker has not answered for longer than the feed bears; try again with a new feed.
        """
        if self._error is not None:
            raise self._error
        self._check_topics()
        if self._late:
            self._admit()
        if blocks := self._decoded():
            return blocks
        try:
            fetched = self._tail.poll(max_wait_s=max_wait_s)
        except OutOfRangeError as error:
            self._check()
            raise UnavailableError("the broker had not all of its records for a moment", fix="try again") from error
        self._check_topics()
        for partition, records, next_offset in fetched:
            self._coming.append((partition, self._cursors[partition].take(records, next_offset=next_offset)))
        return self._decoded()

    def hold(self, partitions: Collection[Partition]) -> None:
        """Nothing comes of `partitions`, and of them alone, until this is called again: enough of them waits elsewhere."""
        held = frozenset(partitions)
        for partition in (held ^ self._held) & self._cursors.keys():
            if not self._cursors[partition].is_done:
                (self._tail.pause if partition in held else self._tail.resume)(partition)
        self._held = held

    def end_offsets(self) -> Mapping[Partition, int]:
        """Per partition the newest known offset that can be read, exclusive; as of the last fetch. Does not block."""
        return self._tail.end_offsets()

    def news(self) -> list[str]:
        """What a person should know of, and has not been told by this yet."""
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Free what the feed holds. May be called twice."""
        self._tail.close()

    def _admit(self) -> None:
        """Partitions that have a leader now are read with the others."""
        led = sorted(self._late.keys() & self._tail.end_offsets().keys())
        for partition in led:
            self._cursors[partition] = self._late[partition].admit()
            del self._late[partition]
            if partition not in self._held and not self._cursors[partition].is_done:
                self._tail.resume(partition)
        if led:
            self._news.append(f"{_names(led)} has a leader again" if len(led) == 1 else f"{_names(led)} have leaders again")

    def _decoded(self) -> list[Block]:
        """Blocks of what was fetched; the rest waits as it came, because decoded it may be a thousand times as long."""
        blocks: list[Block] = []
        held: list[tuple[Partition, Iterator[Block]]] = []
        num_bytes = 0
        while self._coming and num_bytes < BLOCK_BYTES:
            partition, coming = self._coming[0]
            if partition in self._held:
                held.append(self._coming.popleft())
            elif (block := self._next(coming)) is not None:
                blocks.append(block)
                num_bytes += block.meta.num_bytes + REJECT_BYTES * len(block.meta.rejects)
            else:
                self._coming.popleft()
                if self._cursors[partition].is_done:
                    self._tail.pause(partition)
        self._coming.extendleft(reversed(held))
        if self._error is not None and not blocks:
            raise self._error
        return blocks

    def _next(self, coming: Iterator[Block]) -> Block | None:
        """The next block of a partition; None where there is none, or none yet, upon which the feed ends behind what came before."""
        try:
            return next(coming, None)
        except UnavailableError as error:
            self._error = error
            return None

    def _check_topics(self) -> None:
        found, now_s = self._tail.topic_ids(), self._clock.monotonic_s()
        for topic, topic_id in self._topic_ids.items():
            if found.get(topic) == topic_id:
                self._known_at_s[topic] = now_s
            elif topic in found or now_s - self._known_at_s[topic] > GONE_S:
                self._check()
                self._known_at_s[topic] = now_s

    def _check(self) -> None:
        left = {p: c.position for p, c in self._cursors.items() if not c.is_done}
        known = self._tail.topic_ids()
        left |= {p: Position(late.offset) for p, late in self._late.items() if p.topic not in known}
        check(find_losses(self._log, left, topic_ids=self._topic_ids, clock=self._clock), fix=WAYS_OUT)


def _names(partitions: Collection[Partition]) -> str:
    """Some of them, by name."""
    some = ", ".join(map(str, sorted(partitions)[:_SHOWN]))
    return some if len(partitions) <= _SHOWN else f"{some} and {len(partitions) - _SHOWN} more partitions"
