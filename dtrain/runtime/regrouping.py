"""Regrouping: members become a generation, at the beginning, after a loss, and behind a membership step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dtrain.clock import Clock
from dtrain.errors import MemberLostError, PoisonError
from dtrain.policy.election import Election, adopt, elect
from dtrain.policy.poison import TRIES, Deaths
from dtrain.runtime.checkpointing import Checkpointing
from dtrain.runtime.crew import Crew, TrainerHandle
from dtrain.runtime.membership import Answers, Membership, standings
from dtrain.runtime.planner import Planner
from dtrain.runtime.tracker import Tracker
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import in_words

_EAGER, _PAUSE_S = 3, 0.01
"""So many generations form at once; those after them take more time each, because what is in their way may need some."""

MAX_FRUITLESS = 10
"""So many generations in a row that were lost without a step, and the attempt is given up: a block may be lost, and another attempt reads anew."""


class Regrouping:
    """One attempt's generations. On the coordinator's event loop.

    Args:
        membership: of the attempt.
        crew: filled again once a generation has formed.
        deaths: of members of this job, over all attempts.
        tracker: told of everything.
        clock: monotonic.
        on_plans: called when a generation that forms may pull its plans.
        on_formed: told that a generation has formed: it trains, or waits for rows.
    """

    def __init__(
        self,
        membership: Membership,
        *,
        crew: Crew,
        deaths: Deaths,
        tracker: Tracker,
        clock: Clock,
        on_plans: Callable[[], None],
        on_formed: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._crew = crew
        self._deaths = deaths
        self._tracker = tracker
        self._clock = clock
        self._on_plans = on_plans
        self._on_formed = on_formed
        self._broken = ""  # why the generation cannot go on; others can
        self._has_died = False
        self._arrived: set[int] = set()  # ranks that stand behind the membership step
        self._num_fruitless = 0
        self._asked_at_s = 0.0
        self._stood_at_s: float | None = None  # since when all have waited behind a membership step

    @property
    def is_due(self) -> bool:
        """The generation cannot go on, or all of it waits for others to join or to leave."""
        return bool(self._broken) or self._has_arrived

    @property
    def _has_arrived(self) -> bool:
        """All members stand behind a membership step."""
        return bool(self._arrived) and len(self._arrived) == len(self._membership.members)

    def lost(self, member: TrainerHandle, *, is_death: bool) -> None:
        """A member is gone; `is_death`: by its own process's end."""
        self._has_died = self._has_died or is_death
        self._broken = f"{member} is lost: {member.gone.result()}"

    def broke(self, why: str) -> None:
        """A member's collective, or something else that may work the next time, has failed."""
        self._broken = self._broken or why

    def arrived(self, rank: int) -> None:
        """A member stands behind the membership step, and waits."""
        self._arrived.add(rank)
        if self._has_arrived:
            self._stood_at_s = self._clock.monotonic_s()

    def stepped(self) -> None:
        """The generation has trained."""
        self._num_fruitless = 0
        if self._stood_at_s is not None:
            pause_s, self._stood_at_s = self._clock.monotonic_s() - self._stood_at_s, None
            self._tracker.happened("generation", f"training stood still for {pause_s:.3f} s while members changed")

    async def take_over(self, parent: Progress) -> tuple[Answers, Election | None]:
        """Who shall be members, and whose state is adopted: of live trainers whose log goes through the parent; None for none."""
        self._asked_at_s = self._clock.monotonic_s()
        answers = await self._membership.ask(self._crew.ready, parent_number=parent.plan_number)
        election = adopt(standings(answers), parent_hash=parent.log_hash, preferred=self._wanted)
        answers = self._seated(answers, election)
        return answers, election.among(answers) if election is not None else None

    async def reform(self, planner: Planner, checkpoints: Checkpointing) -> None:
        """Those who are left are a generation again, with whoever waits to join where all stand at a membership step.

        Raises:
            MemberLostError: nobody is left whose state is of this attempt.
            PoisonError: the same step has killed its members in three generations.
        """
        while True:
            if self._num_fruitless >= _EAGER:
                await asyncio.sleep(_PAUSE_S * 2**self._num_fruitless)
            is_joining, members, generation = self._has_arrived, self._membership.members, self._membership.key
            self._asked_at_s = self._clock.monotonic_s()
            candidates = {*self._membership.present, *(self._membership.wanted if is_joining else ())}
            answers = await self._membership.ask(sorted(candidates, key=lambda m: m.serial), parent_number=planner.plan_number)
            election = elect(standings(answers), attempt=generation[0], at_least=planner.floor, preferred=self._wanted)
            self._blame(planner, election, generation=generation)
            self._num_fruitless += 1
            if election is None or self._num_fruitless > MAX_FRUITLESS:
                raise MemberLostError("no trainer is left that has the state" if answers else "no trainer is left")
            answers, lowest = self._seated(answers, election) if is_joining else answers, members[0].serial
            checkpoints.reformed(
                lowest=None if lowest in election.behind else lowest,
                present=answers.keys(),
                plan_number=election.plan_number,
            )
            progress = answers[election.source].progress
            if await self.form(answers, election.among(answers), progress=progress, planner=planner, checkpoints=checkpoints):
                self._num_fruitless = 0 if is_joining else self._num_fruitless  # where rows are rare, many may come and go
                return

    def _blame(self, planner: Planner, election: Election | None, *, generation: tuple[int, int]) -> None:
        """Whoever died, died in a step; raises PoisonError where the same one has killed too often."""
        if not self._has_died:
            return
        self._has_died = False
        rows = planner.at_risk(election.plan_number if election is not None else None)
        if self._deaths.died(rows, generation=generation):
            raise PoisonError(
                f"{TRIES} processes in a row died in the step of {in_words(rows.ranges)}",
                fix="see the job's logs; repair the task, or leave these rows out: dtrain resume --skip-step",
                ranges=rows.ranges,
            )

    @property
    def _wanted(self) -> set[int]:
        return {member.serial for member in self._membership.wanted}

    def _seated(self, answers: Answers, election: Election | None) -> Answers:
        """Of those who are to be members, and of the source in any case."""
        seated = self._wanted | ({election.source} if election is not None else set())
        return {serial: answer for serial, answer in answers.items() if serial in seated}

    async def form(
        self,
        answers: Answers,
        election: Election | None,
        *,
        progress: Progress,
        planner: Planner,
        checkpoints: Checkpointing,
    ) -> bool:
        """Those who answered are a generation that stands at `progress`; False: they could not, `reform`."""
        if not answers:
            return False
        self._arrived, self._broken = set(), ""
        planner.is_careful = self._deaths.is_careful
        planner.form(len(answers), plan_number=progress.plan_number)
        self._on_plans()
        asked_s, began_s = self._clock.monotonic_s() - self._asked_at_s, self._clock.monotonic_s()
        problem = await self._membership.form(
            answers, election=election, checkpoint=checkpoints.durable, is_careful=planner.is_careful
        )
        (attempt, generation), members = self._membership.key, self._membership.members
        if problem:
            self._tracker.happened("generation", f"attempt {attempt}, generation {generation} could not form: {problem}")
            return False
        self._tracker.attempt, self._tracker.generation = attempt, generation
        self._tracker.world_size = len(members)
        self._tracker.stands_at(progress)
        origin = "from a checkpoint" if election is None else f"{len(election.behind)} received its state"
        took = f"asked in {1000 * asked_s:.0f} ms, formed in {1000 * (self._clock.monotonic_s() - began_s):.0f} ms"
        self._tracker.happened(
            "generation",
            f"attempt {attempt}, generation {generation}: {len(members)} trainers at step {progress.step} ({origin}; {took})",
        )
        self._on_formed()
        self._crew.fill()  # not before: a process that starts takes the CPU from those that recover
        self._crew.trim()
        return True
