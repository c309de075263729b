"""Leases: who has been silent for too long, and who does not get on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

LONG_STEP_S = 10.0
"""No step is called stuck before it has taken so long."""

FIRST_STEP_S = 600.0
"""The same for the first one of a process, which may compile and load what it needs, and where it is not known what a step takes."""


@dataclass(slots=True)
class Leases:
    """A member that is not heard for `lease_s` is gone, unless it was we who did not listen.

    Args:
        lease_s: how long a member may be silent.
        tick_s: how often `expired` is meant to be called; by as much as it is late, every lease is longer.
    """

    lease_s: float
    tick_s: float
    _until_s: dict[int, float] = field(default_factory=dict)
    _ticked_s: float | None = None

    def hear(self, member: int, *, now_s: float) -> None:
        """`member` has given a sign of life."""
        self._until_s[member] = now_s + self.lease_s

    def forget(self, member: int) -> None:
        """Nothing is expected of `member` any more."""
        self._until_s.pop(member, None)

    def expired(self, *, now_s: float) -> list[int]:
        """Whose leases have run out. What has come before this call must have been heard by then."""
        late_s = 0.0 if self._ticked_s is None else max(0.0, now_s - self._ticked_s - self.tick_s)
        self._ticked_s = now_s
        if late_s > self.tick_s:
            self._until_s = {member: until_s + late_s for member, until_s in self._until_s.items()}
        return [member for member, until_s in self._until_s.items() if now_s >= until_s]


class Phase(StrEnum):
    """What a member's training thread is doing."""

    IDLE = "waits for plans"
    WORK = "computes"
    COLLECTIVE = "waits for the other ranks"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member's training thread is: in which phase of which plan, and since when, by the listener's clock."""

    phase: Phase
    plan_number: int
    since_s: float


def stuck(places: Mapping[int, Place], *, fresh: Collection[int], steps_s: Sequence[float], now_s: float) -> list[int]:
    """Who computes for so long that it is a deadlock or endless user code; nobody where all wait for each other.

    Args:
        places: of all members.
        fresh: members whose processes have computed no row before.
        steps_s: what steps have taken lately, in seconds. The longest of them is left out, if there are others: it may be a first one.
        now_s: by the same clock as `since_s`.
    """
    long_s = sorted(steps_s)[int(0.99 * (len(steps_s) - 1))] if steps_s else FIRST_STEP_S / 10
    limit_s = max(LONG_STEP_S, 10 * long_s)
    return [
        member
        for member, place in places.items()
        if place.phase is Phase.WORK and now_s - place.since_s > (max(limit_s, FIRST_STEP_S) if member in fresh else limit_s)
    ]
