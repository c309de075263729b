"""Patience: how long a broker may be silent, or keep what it has to itself, before a tail gives it up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from dtrain.clock import Clock
from dtrain.errors import UnavailableError
from dtrain.logs import logger
from dtrain.steplog.positions import Partition

CONNECT_MS = 6_000
REQUEST_MS = 8_000
"""How long a broker may take to answer at first, and to answer one question."""

COMMIT_S = 3.0
"""Longest that an advisory commit is tried while the group's coordinator is not ready: the reader reads nothing meanwhile."""

BRIEF_BYTES = 64 << 10
"""How much of a partition a brief tail fetches at a time."""

PATIENCE_S = 20.0
"""How long a tail waits for a broker that has gone, or for records that the broker has but does not send."""

REFRESH_S = 1.0
"""How often a tail asks for ends and for the topic's id."""


class Patience:
    """What a tail has heard of its partitions, and when.

    Args:
        partitions: the tail's.
        bootstrap: the broker's address, for errors.
        clock: of the tail.
    """

    def __init__(self, partitions: Iterable[Partition], *, bootstrap: str, clock: Clock) -> None:
        self._bootstrap = bootstrap
        self._clock = clock
        self._answered_at_s = now_s = clock.monotonic_s()
        self._asked_at_s = now_s - REFRESH_S
        self._moved_at_s = dict.fromkeys(partitions, now_s)
        self._missed_at_s: dict[Partition, float] = {}
        self._is_told = False
        self.ends: dict[Partition, int] = {}
        """The newest known end of what can be read."""

    def moved(self, partition: Partition, offset: int) -> None:
        """Something of `partition` came, up to `offset`."""
        self._moved_at_s[partition] = self._clock.monotonic_s()
        self.ends[partition] = max(offset, self.ends.get(partition, 0))

    def resumed(self, partition: Partition) -> None:
        """From now on something of `partition` may be expected again."""
        self._moved_at_s[partition] = self._clock.monotonic_s()

    def is_due(self) -> bool:
        """Whether the ends should be asked for now; whoever hears yes asks."""
        now_s = self._clock.monotonic_s()
        if now_s - self._asked_at_s < REFRESH_S:
            return False
        if now_s - self._asked_at_s > 5 * REFRESH_S:  # nobody polled for so long, which is not the broker's fault
            self._answered_at_s = now_s
            self._moved_at_s = dict.fromkeys(self._moved_at_s, now_s)
        self._asked_at_s = now_s
        return True

    def unanswered(self, error: Exception) -> None:
        """The broker did not say its ends.

        Raises:
            Exception: `error`, once that has been so for `PATIENCE_S`.
        """
        if self._clock.monotonic_s() - self._answered_at_s > PATIENCE_S:
            raise error

    def answered(self, ends: Mapping[Partition, int], *, wanted: Mapping[Partition, int]) -> None:
        """The broker has said its ends. A partition of which it says none, for want of a leader, keeps nobody from the others: it is
        waited for, which the log tells.

        Args:
            ends: of every partition of which it has said one.
            wanted: the next offset of every partition of which something is wanted now.

        Raises:
            UnavailableError: it has had records of one of them for `PATIENCE_S`, and sends none.
        """
        self._answered_at_s = now_s = self._clock.monotonic_s()
        self.ends.update(ends)
        self._miss(self._moved_at_s.keys() - ends.keys(), now_s)
        for partition, end in ends.items():
            if end <= wanted.get(partition, end):
                self._moved_at_s[partition] = now_s
            elif now_s - self._moved_at_s[partition] > PATIENCE_S:
                raise UnavailableError(
                    f"{partition}: Kafka at {self._bootstrap} has records from offset {wanted[partition]} on, but sends none",
                    fix="see whether the broker is well",
                )

    def _miss(self, silent: Set[Partition], now_s: float) -> None:
        """Of `silent` partitions nothing can come now."""
        self._moved_at_s.update(dict.fromkeys(silent, now_s))
        self._missed_at_s = {partition: self._missed_at_s.get(partition, now_s) for partition in silent}
        late = sorted(partition for partition, at_s in self._missed_at_s.items() if now_s - at_s > PATIENCE_S)
        if late and not self._is_told:
            names = ", ".join(map(str, late))
            logger().warning("partitions without a leader", bootstrap=self._bootstrap, partitions=names)
        self._is_told = bool(late)
