"""Blocking: how much a call to a reader brings, and how long it waits for more. Bounded in rows and in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from dtrain.steplog.blocks import BlockMeta

LINGER_S = 0.01
"""The longest that rows wait for others to travel with."""

RECORD_BYTES = 64
"""What a record's coordinates take in the coordinator's memory, about."""

REJECT_BYTES = 256
"""The same for a bad row and its reason."""

FATE_BYTES = 9
"""The same for a row of a block of which some are left out: what became of it, and how many before it are trained."""

MOST_REJECTS = 32_768
"""Bad rows that may wait to be carried by a step."""


@dataclass(frozen=True, slots=True)
class Size:
    """So many rows or so many bytes, whichever comes first."""

    rows: int
    num_bytes: int

    def is_reached(self, *, rows: int, num_bytes: int) -> bool:
        """Whether one of both is there."""
        return rows >= self.rows or num_bytes >= self.num_bytes


FULL = Size(rows=16_384, num_bytes=4 << 20)
"""What a call brings at most (unless one block has more): enough that the call itself costs little."""

_LARGEST_BUFFER_BYTES = 256 << 20
_STORE_SHARE = 4


def buffer_of(*, step_rows: int, store_bytes: int) -> Size:
    """What a job may hold of rows that are not trained: waiting, planned, and on their way.

    Args:
        step_rows: rows of a full step.
        store_bytes: capacity of the smallest object store among the hosts; others use it too.
    """
    return Size(rows=max(16 * step_rows, 4 * FULL.rows), num_bytes=min(_LARGEST_BUFFER_BYTES, store_bytes // _STORE_SHARE))


def call_size(buffer: Size, *, num_calls: int) -> Size:
    """What each of `num_calls` that may be in flight brings at most: together half of the buffer, the other half is for what waits."""
    share = buffer.num_bytes // 2 // max(1, num_calls)
    return Size(rows=min(FULL.rows, buffer.rows), num_bytes=max(1, min(FULL.num_bytes, share)))


def linger_s(*, rows: int, num_bytes: int, size: Size, since_first_s: float, since_last_s: float) -> float:
    """How much longer rows that are there wait for more before they leave together.

    With a backlog they leave when `size` is there. Where the stream is caught up, those that come alone leave at once, and those that
    come close behind others `LINGER_S` behind them: so calls that bring something are at most 1 / `LINGER_S` a second.

    Args:
        rows: that are there.
        num_bytes: that are there.
        size: of what leaves.
        since_first_s: how long the first of them has waited.
        since_last_s: how long ago the last ones left.
    """
    if size.is_reached(rows=rows, num_bytes=num_bytes):
        return 0.0
    return max(0.0, LINGER_S - max(since_first_s, since_last_s))


def weight_bytes(block: BlockMeta) -> int:
    """What a block takes: its rows in the object store, its coordinates in the coordinator's memory."""
    coordinates = RECORD_BYTES * len(block.offsets) + REJECT_BYTES * len(block.rejects)
    return block.num_bytes + coordinates + FATE_BYTES * len(block.fates)
