"""Feeds: blocks in order, from the raw records of a log."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from dtrain.clock import Clock
from dtrain.data.block import Block
from dtrain.errors import DataLossError, NotFoundError, UnavailableError
from dtrain.steplog.positions import Partition, Positions
from dtrain.stream.cursor import Cursor
from dtrain.stream.log import Bounds, Log, OutOfRangeError, Tail

GRACE_S = 3.0
"""How long a broker may take after its return to show again all that it had, before that counts as lost."""

GONE_S = 15.0
"""How long the broker may know no such topic before that counts as deleted."""


class LogFeed:
    """The `Feed` over a log's tail; see there for the contract."""

    def __init__(self, log: Log, cursors: Sequence[Cursor], *, topic_id: str, clock: Clock) -> None:
        self._log = log
        self._cursors = {cursor.partition: cursor for cursor in cursors}
        self._topic_id = topic_id
        self._clock = clock
        self._known_at_s = clock.monotonic_s()
        self._tail: Tail = log.tail({c.partition: c.position.offset for c in cursors})
        self._held: frozenset[Partition] = frozenset()
        for cursor in cursors:
            if cursor.is_done:
                self._tail.pause(cursor.partition)

    def poll(self, *, max_wait_s: float) -> Sequence[Block]:
        """See `Feed.poll`."""
        self._check_topic()
        try:
            fetched = self._tail.poll(max_wait_s=max_wait_s)
        except OutOfRangeError as error:
            check_range(self._log, {p: c.position for p, c in self._cursors.items() if not c.is_done}, clock=self._clock)
            raise UnavailableError("the broker had not all of its records for a moment", fix="try again") from error
        self._check_topic()
        blocks = []
        for partition, records, next_offset in fetched:
            cursor = self._cursors[partition]
            blocks += cursor.take(records, next_offset=next_offset)
            if cursor.is_done:
                self._tail.pause(partition)
        return blocks

    def hold(self, partitions: Collection[Partition]) -> None:
        """See `Feed.hold`."""
        held = frozenset(partitions)
        for partition in held ^ self._held:
            if not self._cursors[partition].is_done:
                (self._tail.pause if partition in held else self._tail.resume)(partition)
        self._held = held

    def end_offsets(self) -> Mapping[Partition, int]:
        """See `Feed.end_offsets`."""
        return self._tail.end_offsets()

    def close(self) -> None:
        """See `Feed.close`."""
        self._tail.close()

    def _check_topic(self) -> None:
        found, now_s = self._tail.topic_id(), self._clock.monotonic_s()
        if found == self._topic_id:
            self._known_at_s = now_s
        elif found is not None:
            raise _recreated(self._topic_id, found)
        elif now_s - self._known_at_s > GONE_S:
            check_topic(self._log, self._topic_id, clock=self._clock)
            self._known_at_s = now_s


def check_topic(log: Log, topic_id: str, *, clock: Clock) -> None:
    """Return if the topic is the one of `topic_id`.

    Raises:
        DataLossError: it is another one of the same name, or was deleted.
    """
    deadline_s = clock.monotonic_s() + GRACE_S
    while True:
        try:
            found = log.describe().topic_id
        except NotFoundError as error:
            if clock.monotonic_s() > deadline_s:
                raise DataLossError(f"the topic was deleted: {error.reason}", fix="start a new job") from error
            clock.sleep(0.2)
            continue
        if found != topic_id:
            raise _recreated(topic_id, found)
        return


def _recreated(expected: str, found: str) -> DataLossError:
    return DataLossError(
        f"the topic is not the one that the job was reading: it was made anew (id {found}, not {expected})",
        fix="start a new job on it",
    )


def check_range(log: Log, positions: Positions, *, stops: Positions | None = None, clock: Clock) -> None:
    """Return if everything at and behind `positions` can still be read, and is there up to `stops`.

    Raises:
        DataLossError: records were deleted, or the topic is shorter than it was; names the partition and the offsets.
    """
    deadline_s = clock.monotonic_s() + GRACE_S
    while short := _short(log.bounds(), positions, positions if stops is None else stops):
        if clock.monotonic_s() > deadline_s:
            raise short
        clock.sleep(0.2)


def _short(bounds: Mapping[Partition, Bounds], positions: Positions, stops: Positions) -> DataLossError | None:
    """The error for a partition that ends before its stop, which a broker that just returned may seem to do.

    Raises:
        DataLossError: a partition is gone, or begins behind its position, which does not heal.
    """
    for partition, position in positions.items():
        bound = bounds.get(partition)
        if bound is None:
            raise DataLossError(f"{partition}: the topic has no such partition any more", fix="start a new job on the topic")
        if position.offset < bound.begin:
            raise DataLossError(
                f"{partition}: records from offset {position.offset} to {bound.begin - 1} were deleted before they were trained",
                fix="give the topic a longer retention, and start a new job from where records are left",
            )
        if stops[partition].offset > bound.end:
            return DataLossError(
                f"{partition}: the job was at offset {stops[partition].offset}, but the topic ends at {bound.end}: it was cut short",
                fix="find out how the broker lost them (see its leader epochs), and start a new job",
            )
    return None
