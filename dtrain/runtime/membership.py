"""Membership: the generations of one attempt: who is asked, whose state counts, who gets which slices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ray.exceptions import RayActorError

from dtrain.checkpoint.manifest import Manifest
from dtrain.errors import UnavailableError
from dtrain.policy.balance import Balance, shares_by_speed
from dtrain.policy.election import Election, Standing
from dtrain.runtime.crew import Crew, TrainerHandle, settled
from dtrain.runtime.messages import Answer, Assignment

_FORM_S = 90.0
Answers = Mapping[int, Answer]


class Membership:
    """Forms one generation after the other. All on the coordinator's event loop.

    Args:
        crew: whose trainers are members.
        attempt: its number.
        num_slices: of a step.
        num_spares: members that compute nothing, beyond the crew's target.
        backend: gloo or nccl.
    """

    def __init__(self, crew: Crew, *, attempt: int, num_slices: int, num_spares: int, backend: str) -> None:
        self._crew = crew
        self._num_slices = num_slices
        self._num_spares = num_spares
        self._backend = backend
        self._balance = Balance()
        self._shares: tuple[int, ...] = ()
        self._is_uneven = False
        self.key = attempt, 0
        """(attempt, generation): what every message of a member carries."""
        self.members: tuple[TrainerHandle, ...] = ()

    @property
    def present(self) -> list[TrainerHandle]:
        """The members that are not lost."""
        return [member for member in self.members if not member.gone.done()]

    @property
    def wanted(self) -> list[TrainerHandle]:
        """Who would be members if a generation were formed now: those who are already come first."""
        seats = min(self._crew.target, self._num_slices) + self._num_spares
        staying = [m for m in self._crew.ready if not m.is_leaving]
        return sorted(staying or self._crew.ready, key=lambda m: (m not in self.members, m.serial))[:seats]

    @property
    def is_as_wanted(self) -> bool:
        """Nobody waits to join, nobody is to leave, and nobody has too many slices."""
        return set(self.wanted) == set(self.members) and not self._is_uneven

    def look_at_speeds(self) -> None:
        """Where some ranks are slower for a while, shares are not as wanted. To be called at regular intervals."""
        if len(self.present) != len(self._shares):
            return
        workers = [member for member, share in zip(self.members, self._shares, strict=True) if share]
        if self._balance.is_worth_it([share for share in self._shares if share], self._row_s(workers)):
            self._is_uneven = True

    def find(self, member: int) -> TrainerHandle | None:
        """The present member with this number."""
        return next((m for m in self.present if m.serial == member), None)

    async def ask(self, candidates: Iterable[TrainerHandle], *, parent_number: int) -> Answers:
        """Where the candidates stand; those who are lost before they answer are left out. Their old generation is over.

        Raises:
            FencedError: a later attempt owns them.
            DtrainError: what a task had raised: no other generation would do better.
        """
        attempt, generation = self.key
        self.key = attempt, generation + 1
        asked = list(candidates)
        found = await asyncio.gather(*(_heard(m, m.actor.query.remote(self.key, parent_number)) for m in asked))
        answers = {m.serial: answer for m, answer in zip(asked, found, strict=True) if answer is not None}
        error = next((answer.error for answer in answers.values() if answer.error is not None), None)
        if error is not None:
            raise error
        return answers

    async def form(self, answers: Answers, *, election: Election | None, checkpoint: Manifest, is_careful: bool) -> str:
        """Those who answered are a generation; else why they are not: ask again.

        Args:
            answers: of this generation's `ask`.
            election: whose state it begins with; None for the checkpoint's.
            checkpoint: the newest.
            is_careful: every step is reported.
        """
        self.members = tuple(m for m in self._crew.ready if m.serial in answers)
        if len(self.members) < len(answers):
            return "a member was lost before it formed"
        assignments = self._assignments(election, checkpoint, is_careful=is_careful)
        forming = [
            asyncio.ensure_future(_heard(m, m.actor.form.remote(a))) for m, a in zip(self.members, assignments, strict=True)
        ]
        try:
            async with asyncio.timeout(_FORM_S):
                for coming in asyncio.as_completed(forming):
                    if await coming is None:
                        return "a member was lost while it formed"
        except TimeoutError:
            return f"it did not form in {_FORM_S:g} s"
        except UnavailableError as error:
            return error.reason
        finally:
            for call in forming:
                call.add_done_callback(_forget)
        for member in self._crew.ready:
            member.rank = self.members.index(member) if member in self.members else -1
        return ""

    def _assignments(self, election: Election | None, checkpoint: Manifest, *, is_careful: bool) -> list[Assignment]:
        self._shares, self._is_uneven = self._share_out(), False
        ranks = {member.serial: rank for rank, member in enumerate(self.members)}
        source = ranks[election.source] if election is not None else -1
        return [
            Assignment(
                attempt=self.key[0],
                generation=self.key[1],
                member=member.serial,
                rank=rank,
                shares=self._shares,
                store=self.members[max(source, 0)].introduction.store,
                backend=self._backend,
                plan_number=election.plan_number if election is not None else checkpoint.progress.plan_number,
                source=source,
                behind=tuple(sorted(ranks[serial] for serial in election.behind)) if election is not None else (),
                is_careful=is_careful,
                checkpoint=(checkpoint.blob, checkpoint.progress) if election is None else None,
            )
            for rank, member in enumerate(self.members)
        ]

    def _share_out(self) -> tuple[int, ...]:
        """Slices of each rank; hot spares, which come last, have none."""
        workers = self.members[: min(self._crew.target, self._num_slices)]
        idle = (0,) * (len(self.members) - len(workers))
        return shares_by_speed(self._row_s(workers), num_slices=self._num_slices) + idle

    def _row_s(self, members: Sequence[TrainerHandle]) -> list[float]:
        return [self._crew.pulses.row_s.get(member.serial, 0.0) for member in members]


def standings(answers: Answers) -> dict[int, Standing]:
    """What elections are decided by."""
    return {serial: answer.standing for serial, answer in answers.items()}


async def _heard(member: TrainerHandle, reference: Any) -> Any:
    """What a call gave (True for nothing), or None when the member was lost first. Raises what the other side raised."""
    call: asyncio.Future[Any] = asyncio.ensure_future(settled(reference))
    await asyncio.wait({call, member.gone}, return_when=asyncio.FIRST_COMPLETED)
    if not call.done():
        call.add_done_callback(_forget)
        return None
    try:
        answer = call.result()
    except RayActorError:
        return None
    return True if answer is None else answer


def _forget(call: asyncio.Future[Any]) -> None:
    """Its member is lost: whatever came of it is not looked at, and not complained of."""
    if not call.cancelled():
        call.exception()
