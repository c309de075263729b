"""Assignment: how many readers are useful, and which of them reads which partition."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from dtrain.steplog.positions import Partition

MOST_READERS = 64

FULL = 0.8
"""Share of a core from which on a reader counts as full: its interpreter does one thing at a time."""

PATIENCE = 3
"""So many looks in a row must agree before readers are added, or partitions change their reader."""

REST = 60
"""So many looks in a row must agree before a reader is taken away."""

EVEN = 1.25
"""The busiest reader may have so many times the mean load."""

_IDLE_SHARE = 0.1
"""Of all load, spread evenly: what partitions count besides what was measured, so that idle ones are spread out too."""


@dataclass(slots=True)
class ReaderCount:
    """How many readers a job has. Ask `look` at regular intervals.

    In `auto`, as many as bring the present load to `FULL` each (the rule of Kubernetes' horizontal autoscaler, for CPU time), and more only
    while rows are wanted that the topic has. Where the broker or the cores are at their end no reader is full, and none is added.

    Args:
        fixed: how many are wanted; 0 for `auto`.
        cpus: of the host that they run on.
        number: as it is.
    """

    fixed: int
    cpus: int
    number: int = 1
    _num_short: int = 0
    _num_idle: int = 0

    @property
    def is_short(self) -> bool:
        """Rows have been wanted for a while that readers did not bring."""
        return self._num_short >= PATIENCE

    def look(self, busy: Sequence[float], *, num_partitions: int, is_starved: bool) -> int:
        """How many there shall be from now on: at least one, and no more than partitions.

        Args:
            busy: CPU seconds a second of each reader.
            num_partitions: of the topic.
            is_starved: rows are wanted, and the topic has more.
        """
        self._num_short = self._num_short + 1 if is_starved else 0
        self._num_idle = self._num_idle + 1 if sum(busy) / (FULL / 2) <= self.number - 1 and not is_starved else 0
        if self.fixed:
            wanted = self.fixed
        elif self.is_short and sum(busy) > FULL * self.number:
            wanted = min(max(self.cpus, self.number), ceil(sum(busy) / FULL))
        else:
            wanted = self.number - (self._num_idle >= REST)
        wanted = max(1, min(wanted, num_partitions, MOST_READERS))
        if wanted != self.number:
            self.number, self._num_short, self._num_idle = wanted, 0, 0
        return self.number


def assign(
    partitions: Collection[Partition],
    *,
    current: Mapping[Partition, int],
    loads: Mapping[Partition, float],
    readers: Collection[int],
    may_move: bool,
) -> dict[Partition, int]:
    """Partition → reader. Whoever has one keeps it, unless its reader is gone, or it moves for an even load.

    The heaviest first, each to the reader with the least (longest processing time first, Graham 1969); then from the busiest to the
    one with the least, as long as that helps and the busiest has more than `EVEN` times the mean.

    Args:
        partitions: that are to be read.
        current: who reads them; others and readers that are gone may be in it.
        loads: measured, in any unit, >= 0; a partition that is missing counts as the mean.
        readers: that are ready, at least one.
        may_move: whether a partition may leave a reader that is ready: both pause for a moment.
    """
    weights = _weights(partitions, loads)
    found = {partition: current[partition] for partition in partitions if current.get(partition) in readers}
    totals = dict.fromkeys(sorted(readers), 0.0)
    for partition, reader in found.items():
        totals[reader] += weights[partition]
    for partition in sorted(set(partitions) - set(found), key=lambda p: (-weights[p], p)):
        reader = min(totals, key=lambda r: totals[r])
        found[partition] = reader
        totals[reader] += weights[partition]
    if may_move:
        _level(found, weights, totals)
    return found


def _weights(partitions: Collection[Partition], loads: Mapping[Partition, float]) -> dict[Partition, float]:
    """Shares of the whole load: about 1 in sum, and none is 0."""
    known = [loads[partition] for partition in partitions if partition in loads]
    mean = sum(known) / len(known) if known else 1.0
    found = {partition: loads.get(partition, mean) for partition in partitions}
    total = sum(found.values()) or 1.0
    return {partition: load / total + _IDLE_SHARE / len(found) for partition, load in found.items()}


def _level(found: dict[Partition, int], weights: Mapping[Partition, float], totals: dict[int, float]) -> None:
    """From the busiest reader to the one with the least, until all is even enough, or no partition is light enough."""
    lines: dict[int, list[tuple[float, Partition]]] = {reader: [] for reader in totals}  # lightest first
    for partition in sorted(found, key=lambda p: (weights[p], p)):
        lines[found[partition]].append((weights[partition], partition))
    while True:
        busiest, least = max(totals, key=lambda r: totals[r]), min(totals, key=lambda r: totals[r])
        if totals[busiest] <= EVEN * sum(totals.values()) / len(totals):
            return
        index = _nearest(lines[busiest], gap=totals[busiest] - totals[least])
        if index is None:
            return
        weight, partition = lines[busiest].pop(index)
        insort(lines[least], (weight, partition))
        totals[busiest] -= weight
        totals[least] += weight
        found[partition] = least


def _nearest(line: Sequence[tuple[float, Partition]], *, gap: float) -> int | None:
    """Where in `line`, lightest first, the partition stands that comes nearest to half of `gap`; None where all are too heavy."""
    above = bisect_left(line, gap / 2, key=lambda item: item[0])
    below = (
        bisect_left(line, line[above - 1][0], key=lambda item: item[0]) if above else None
    )  # the first of those that weigh as much
    near = [index for index in (below, above) if index is not None and index < len(line)]
    light = [index for index in near if line[index][0] < gap * 0.999]  # equal ones would go round
    return min(light, key=lambda index: (abs(gap / 2 - line[index][0]), line[index][1]), default=None)
