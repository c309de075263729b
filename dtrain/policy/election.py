"""Election: whose state a generation begins with (architecture: the protocol, a trainer dies, the coordinator dies)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a member stands. Whoever has answered with it applies nothing more under its old generation.

    Args:
        attempt: in which its state was confirmed: it was in a generation of it that had formed; 0 for none.
        plan_number: of its last entry.
        log_hash: running hash there.
        is_clean: False where an apply block was left in the middle, or a state was received in part: then it has none.
        parent_hash: running hash at the plan number that was asked for; None where its log tail does not reach there.
    """

    attempt: int
    plan_number: int
    log_hash: str
    is_clean: bool
    parent_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Election:
    """The source of a generation, and who must receive its state; the others have it."""

    source: int
    plan_number: int
    behind: frozenset[int]

    def among(self, members: Collection[int]) -> Election:
        """The same election where only `members`, the source among them, go on."""
        return replace(self, behind=self.behind.intersection(members))


def elect(
    standings: Mapping[int, Standing], *, attempt: int, at_least: int = 0, preferred: Collection[int] = ()
) -> Election | None:
    """The most advanced clean member whose state was confirmed in `attempt`; None when there is none: go back to a checkpoint.

    Its entries win over plans: who else has applied less, or something else, receives its state.

    Args:
        standings: of those who answered.
        attempt: the present one.
        at_least: plan number behind which the plans are kept: who stands before it was left out long ago.
        preferred: of those who stand equally far, one of them is the source: nobody who is to leave is kept for a state that others have.
    """
    confirmed = {key: s for key, s in standings.items() if s.is_clean and s.attempt == attempt}
    return _choose(standings, {key: s for key, s in confirmed.items() if s.plan_number >= at_least}, preferred)


def adopt(standings: Mapping[int, Standing], *, parent_hash: str, preferred: Collection[int] = ()) -> Election | None:
    """The same for a coordinator that takes a job over: a replica whose log goes through its parent, of the highest attempt.

    Args:
        standings: their `parent_hash` is asked at the parent's plan number.
        parent_hash: the parent's running hash.
        preferred: as above.
    """
    through = {key: s for key, s in standings.items() if s.is_clean and s.attempt and s.parent_hash == parent_hash}
    highest = max((s.attempt for s in through.values()), default=0)
    return _choose(standings, {key: s for key, s in through.items() if s.attempt == highest}, preferred)


def _choose(standings: Mapping[int, Standing], sources: Mapping[int, Standing], preferred: Collection[int]) -> Election | None:
    if not sources:
        return None
    source = max(sources, key=lambda key: (sources[key].plan_number, key in preferred, -key))
    chosen = sources[source]
    equal = {key for key, s in standings.items() if s.is_clean and s.attempt and s.log_hash == chosen.log_hash}
    return Election(source, chosen.plan_number, frozenset(standings.keys() - equal))
