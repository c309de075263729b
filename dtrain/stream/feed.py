"""Feeds: blocks in order, from the raw records of a log."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence

from dtrain.clock import Clock
from dtrain.data.block import Block
from dtrain.data.messages import BLOCK_BYTES, REJECT_BYTES
from dtrain.errors import UnavailableError
from dtrain.steplog.positions import Partition
from dtrain.stream.cursor import Cursor
from dtrain.stream.log import Log, OutOfRangeError, Tail
from dtrain.stream.losses import WAYS_OUT, check, find_losses

GONE_S = 15.0
"""How long the broker may know no such topic before that counts as deleted."""


class Feed:
    """Blocks in order, from given positions on. Not safe to call from several threads."""

    def __init__(self, log: Log, cursors: Sequence[Cursor], *, topic_ids: Mapping[str, str], clock: Clock) -> None:
        self._log = log
        self._cursors = {cursor.partition: cursor for cursor in cursors}
        self._clock = clock
        self._topic_ids = {cursor.partition.topic: topic_ids[cursor.partition.topic] for cursor in cursors}
        self._known_at_s = dict.fromkeys(self._topic_ids, clock.monotonic_s())
        self._tail: Tail = log.tail({c.partition: c.position.offset for c in cursors})
        self._held: frozenset[Partition] = frozenset()
        self._coming: deque[tuple[Partition, Iterator[Block]]] = deque()
        for cursor in cursors:
            if cursor.is_done:
                self._tail.pause(cursor.partition)

    def poll(self, *, max_wait_s: float) -> Sequence[Block]:
        """Blocks that have come, about `BLOCK_BYTES` of them at most, or none after `max_wait_s`.

        Per partition each block starts where the one before ended, the first at the feed's positions; rows at or behind
        the partition's end are never in a block. A block may have no rows: its end has moved over gaps or bad records.

        Raises:
            DataLossError: retention has overtaken a position, or the topic is shorter than it was.
            UnavailableError: the broker has not answered for longer than the feed bears; try again with a new feed.
        """
        self._check_topics()
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

    def close(self) -> None:
        """Free what the feed holds. May be called twice."""
        self._tail.close()

    def _decoded(self) -> list[Block]:
        """Blocks of what was fetched; the rest waits as it came, because decoded it may be a thousand times as long."""
        blocks: list[Block] = []
        held: list[tuple[Partition, Iterator[Block]]] = []
        num_bytes = 0
        while self._coming and num_bytes < BLOCK_BYTES:
            partition, coming = self._coming[0]
            if partition in self._held:
                held.append(self._coming.popleft())
            elif (block := next(coming, None)) is not None:
                blocks.append(block)
                num_bytes += block.meta.num_bytes + REJECT_BYTES * len(block.meta.rejects)
            else:
                self._coming.popleft()
                if self._cursors[partition].is_done:
                    self._tail.pause(partition)
        self._coming.extendleft(reversed(held))
        return blocks

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
        check(find_losses(self._log, left, topic_ids=self._topic_ids, clock=self._clock), fix=WAYS_OUT)
