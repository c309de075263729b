"""The gatherer: what a call to a reader brings, out of what comes of its feed."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from dtrain.clock import Clock
from dtrain.data.block import Block
from dtrain.policy.blocking import Size, linger_s, weight_bytes
from dtrain.steplog.positions import Partition
from dtrain.stream.feed import Feed


@dataclass(slots=True)
class _Parcel:
    """Blocks that travel together."""

    blocks: list[Block] = field(default_factory=list)
    rows: int = 0
    num_bytes: int = 0

    def add(self, block: Block) -> None:
        self.blocks.append(block)
        self.rows += block.meta.num_rows
        self.num_bytes += weight_bytes(block.meta)


class Gatherer:
    """Gives a feed's blocks out, so many at a time. What a poll brings beyond that is kept, and nothing is polled before it is given out.

    Args:
        feed: whose blocks.
        clock: monotonic.
    """

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self.feed = feed
        self._clock = clock
        self._ready: deque[Block] = deque()
        self._left_s = clock.monotonic_s()

    def gather(self, size: Size, *, sated: Collection[Partition], max_wait_s: float) -> list[Block]:
        """Blocks until `size` is reached, by the last of them, or for as long as `linger_s` says; none if none came in `max_wait_s`.

        Raises:
            DataLossError, UnavailableError: as `Feed.poll`; the feed must not be used any more.
        """
        self.feed.hold(sated)
        parcel = _Parcel()
        self._take(parcel, size, sated=sated)
        if not parcel.blocks:
            self._poll(parcel, size, sated=sated, max_wait_s=max_wait_s)
        came_s = self._clock.monotonic_s()
        while parcel.blocks and (wait_s := self._wait_s(parcel, size, came_s=came_s)) > 0:
            self._poll(parcel, size, sated=sated, max_wait_s=wait_s)
        if parcel.blocks:
            self._left_s = self._clock.monotonic_s()
        return parcel.blocks

    def _wait_s(self, parcel: _Parcel, size: Size, *, came_s: float) -> float:
        now_s = self._clock.monotonic_s()
        return linger_s(
            rows=parcel.rows,
            num_bytes=parcel.num_bytes,
            size=size,
            since_first_s=now_s - came_s,
            since_last_s=now_s - self._left_s,
        )

    def _poll(self, parcel: _Parcel, size: Size, *, sated: Collection[Partition], max_wait_s: float) -> None:
        self._ready.extend(self.feed.poll(max_wait_s=max_wait_s))
        self._take(parcel, size, sated=sated)

    def _take(self, parcel: _Parcel, size: Size, *, sated: Collection[Partition]) -> None:
        """What is ready goes into the parcel, in order; what is sated stays, and so does what does not fit."""
        left: deque[Block] = deque()
        while self._ready:
            block = self._ready.popleft()
            is_full = size.is_reached(rows=parcel.rows, num_bytes=parcel.num_bytes)
            (left.append if is_full or block.meta.partition in sated else parcel.add)(block)
        self._ready = left
