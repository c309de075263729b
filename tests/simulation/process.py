"""Processes of the simulator: each advances by one atomic action at a time, and talks by messages that may be late."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from dtrain.steplog.entries import Plan

if TYPE_CHECKING:
    from tests.simulation.world import World

Generation = tuple[int, int]
"""(attempt, generation)."""


class ViolationError(Exception):
    """An invariant does not hold."""


class Process:
    """Messages from one sender come in order; between senders, in any."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.rules, self.name = world, world.rules, name
        self.is_dead = self.is_paused = False
        self.weight = world.rng.choice((1, 4, 4, 12))
        self._inbox: dict[str, deque[tuple[Any, ...]]] = {}

    @property
    def is_idle(self) -> bool:
        """Nothing to do until a message comes."""
        raise NotImplementedError

    def turn(self) -> None:
        """One atomic action."""
        raise NotImplementedError

    def send(self, to: str, *message: Any) -> None:
        """`on_<first word>` of the other will be called with the rest, behind our name."""
        other = self.world.processes[to]
        if not other.is_dead:
            other._inbox.setdefault(self.name, deque()).append(message)

    def receives(self) -> bool:
        """Whether this turn was spent on a message."""
        if not self._inbox or self.world.rng.random() >= 0.5:
            return False
        sender = self.world.rng.choice(list(self._inbox))
        word, *rest = self._inbox[sender].popleft()
        if not self._inbox[sender]:
            del self._inbox[sender]
        getattr(self, f"on_{word}")(sender, *rest)
        return True

    def die(self, why: str) -> None:
        if not self.is_dead:
            self.is_dead = True
            self.world.log("{} {}", self.name, why)


class Group:
    """One all-reduce group. It is complete for a member when all have contributed, and not atomic once somebody is gone."""

    def __init__(self, world: World, generation: Generation, members: tuple[int, ...], host: int) -> None:
        self._world, self._generation, self._members, self._host = world, generation, members, host
        self.arrived: set[int] = set()
        self.dropped: set[int] = set()
        self._plans: dict[int, dict[int, Plan]] = {}
        self._done = dict.fromkeys(members, 0)
        self._has_formed = False

    @property
    def lowest(self) -> int:
        return self._members[0]

    @property
    def is_broken(self) -> bool:
        return any(member in self.dropped or self._world.trainer(member).is_dead for member in self._members)

    def has_formed(self) -> bool:
        """All members have come while the host of the group's store lived."""
        all_came = self.arrived.issuperset(self._members) and not self._world.trainer(self._host).is_dead
        self._has_formed = self._has_formed or all_came
        return self._has_formed

    def contribute(self, member: int, plan: Plan) -> None:
        self._plans.setdefault(self._done[member], {})[member] = plan

    def result(self, member: int) -> bool | None:
        """Whether the member's all-reduce came to its end (True) or raised (False); None while it waits."""
        plans = self._plans[self._done[member]]
        if len(plans) < len(self._members):
            return False if self.is_broken else None
        if self.is_broken and self._world.rng.random() < 0.5:
            return False
        if len(set(plans.values())) > 1:
            raise ViolationError(f"inv 3: one all-reduce of {self._generation} summed different steps")
        self._done[member] += 1
        return True
