"""The one thing that ranks do together: sum a buffer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Collective(Protocol):
    """One generation's group of ranks. It dies with its generation, and so do the buffers that went through it."""

    rank: int
    world_size: int
    waited_s: float
    """Seconds spent in collectives so far."""

    def all_reduce_(self, buffer: Tensor) -> None:
        """Replace `buffer` by its sum over all ranks.

        Collective: every rank calls this once per data step, in step order, with a buffer of one shape.

        Blocking: until all ranks have come, one is lost, `abandon` is called, or the group's timeout has passed.

        Raises:
            CollectiveError: a rank was lost, or the group was abandoned. The buffer is undefined, for ever: an abandoned
                operation may still write into it.
        """
        ...

    def abandon(self) -> None:
        """End the group for this rank: a running `all_reduce_` raises soon, every later one at once.

        Threads: called from another thread than the one that trains.
        """
        ...


class InlineCollective:
    """The group of one rank: a sum of one addend is that addend."""

    rank = 0
    world_size = 1
    waited_s = 0.0

    def all_reduce_(self, buffer: Tensor) -> None:
        """Leave `buffer` as it is."""

    def abandon(self) -> None:
        """Nothing waits."""
