"""A coordinator: claims an attempt, forms generations, issues plans, commits checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from dtrain.checkpoint.manifest import Manifest, Snapshot
from dtrain.errors import FencedError, StorageError
from dtrain.policy.election import Election, Standing
from dtrain.runtime.ledger import Ledger, Origin
from dtrain.runtime.planner import Planner
from dtrain.steplog.progress import Progress
from tests.simulation.checkpoints import Checkpoints
from tests.simulation.disk import Errand
from tests.simulation.process import Generation, Process, ViolationError
from tests.simulation.rules import adopt_by, claim_by, elect_by
from tests.simulation.stream import BEGIN, ENDS, new_planner, next_change, read
from tests.simulation.trainer import Form

if TYPE_CHECKING:
    from tests.simulation.world import World

WORLD_SIZE = 3
LOOKAHEAD = 3
Answers = Mapping[int, tuple[Standing, Progress]]


class Coordinator(Process):
    """The counterpart of `runtime.attempt` and its neighbours, with the real planner."""

    def __init__(self, world: World, incarnation: int) -> None:
        super().__init__(world, f"c{incarnation}")
        self.incarnation = incarnation
        self.suspected: set[int] = set()
        self.crew: list[int] = []
        """The trainers that it knows and does not suspect."""
        self.members: tuple[int, ...] = ()
        self._leaving: list[int] = []
        self.checkpoints: Checkpoints | None = None  # of the attempt that is held
        self._errands: list[tuple[Errand, Callable[[Errand], None]]] = []
        self._forming: Generator[None] | None = None
        self._is_training = False
        self._claim()

    @property
    def is_idle(self) -> bool:
        return not (self._inbox or self._errands or self._forming or self._may_issue)

    def turn(self) -> None:
        if self.receives():
            return
        if self._forming is not None and self.world.rng.random() < 0.5:
            next(self._forming, None)
        elif self._errands and self.world.rng.random() < self.world.store_speed:
            self._run_errand()
        elif self._may_issue and self.checkpoints:
            self._issue(self.planner, self.checkpoints)

    def die(self, why: str) -> None:
        super().die(why)
        for errand, _ in self._errands:
            errand.kill()
        self._errands = []

    def send_out(self, call: Callable[[], Any], then: Callable[[Errand], None]) -> None:
        self._errands.append((Errand(self.world.disk, call), then))

    def _run_errand(self) -> None:
        errand, then = item = self.world.rng.choice(self._errands)
        if errand.step(self.world.rng.choice((1, 1, 3, 9))):
            self._errands.remove(item)
            if not isinstance(errand.error, StorageError | FencedError | None):
                raise ViolationError(f"a coordinator failed: {errand.error!r}") from errand.error
            then(errand)

    # --- attempts

    def _claim(self) -> None:
        self.checkpoints, self._is_training, self._forming = None, False, None
        self.send_out(self._take_over, self._on_claimed)

    def _take_over(self) -> Ledger:
        """The errand: an attempt, claimed, with a checkpoint to begin from."""
        store, world = self.world.store, self.world
        attempt = claim_by(self.rules, store, incarnation=self.incarnation, on_skip=lambda text: world.log("  {}", text))
        ledger = Ledger(store, world.spec, world.spec.name, attempt, "", world.clock, attempt.parent)
        if attempt.parent is None:
            beginning = Snapshot(Progress(positions=BEGIN), store.put_blob(world.oracle.encode(())), {})
            ledger.begin(beginning, origin=Origin({}, ENDS), schema={})
        return ledger

    def _on_claimed(self, errand: Errand) -> None:
        if isinstance(errand.error, StorageError):
            return self._claim()
        if errand.error is not None:
            return self.die(f"exits: {errand.error}")
        ledger: Ledger = errand.result
        checkpoints = Checkpoints(self, ledger)
        parent = checkpoints.durable
        self.world.oracle.has_begun = True
        self._attempt = ledger.attempt.number
        self.generation: Generation = (self._attempt, 0)
        self.world.log("{} claimed attempt {} from {}", self.name, self._attempt, parent.name)
        self.world.count("attempts")
        if parent.is_final:
            return self.world.succeed(self, parent)
        self.checkpoints = checkpoints
        self.crew = [index for index in self.world.live_trainers() if index not in self.suspected]
        self.crew = self.crew or [self.world.spawn() for _ in range(self.world.rng.choice((1, 2, 3)))]
        self._forming = self._take_over_trainers(parent)
        return None

    def _take_over_trainers(self, parent: Manifest) -> Generator[None]:
        """The first generation: from live state whose log goes through the parent, or from the parent."""
        answers = yield from self._ask(self.crew, parent_number=parent.ref.plan_number)
        election = adopt_by(self.rules, {index: answer[0] for index, answer in answers.items()}, parent=parent)
        self.world.count("adoptions" if election else "loads")
        progress = answers[election.source][1] if election else parent.progress
        self.planner = self._new_planner(progress)
        self._forming = None
        self._form(answers, progress, election or parent)

    # --- generations

    def _ask(self, candidates: list[int], *, parent_number: int) -> Generator[None, None, Answers]:
        self.generation = (self._attempt, self.generation[1] + 1)
        self._answers: dict[int, tuple[Standing, Progress]] = {}
        self._pulls: dict[int, int] = {}
        self._arrived: set[int] = set()
        self.world.count("generations")
        for index in candidates:
            self.send(f"t{index}", "query", self.generation, parent_number)
        while any(index not in self._answers and index not in self.suspected for index in candidates):
            yield
        return {index: self._answers[index] for index in sorted(self._answers) if index not in self.suspected}

    def _reform(self) -> Generator[None]:
        """Those who are left are a generation again, with whoever waits to join where all stand at a membership step."""
        is_joining = self._arrived >= set(self.members)
        present = [index for index in self.members if index in self.crew]
        answers = yield from self._ask(self.crew if is_joining else present, parent_number=self.planner.plan_number)
        election = elect_by(self.rules, {index: answer[0] for index, answer in answers.items()}, attempt=self._attempt)
        self._forming, checkpoints = None, self.checkpoints
        assert checkpoints is not None
        if election is not None:
            self.world.count("elections")
            lowest = None if self.members[0] in election.behind else self.members[0]
            checkpoints.reformed(lowest=lowest, present=answers, plan_number=election.plan_number)
            self._form(answers, answers[election.source][1], election)
        elif self.rules.rollback_claims or not answers:
            self.world.count("rollbacks")
            self.world.log("{} has nobody left that has the state", self.name)
            self._claim()
        else:
            self.planner = self._new_planner(checkpoints.durable.progress)
            self._form(answers, checkpoints.durable.progress, checkpoints.durable)

    def _form(self, answers: Answers, progress: Progress, origin: Election | Manifest) -> None:
        """Those who answered are a generation that stands at `progress`, from one of them or from a checkpoint."""
        if not answers:
            return self._claim()
        if not self.rules.plans_fixed:
            self.planner = self._new_planner(progress)
        self.planner.form(len(answers), plan_number=progress.plan_number)
        self.members = tuple(answers)
        if isinstance(origin, Manifest):
            form = Form(self.generation, self.members, self.members[0], frozenset(), origin)
        else:
            form = Form(self.generation, self.members, origin.source, origin.behind, None)
        self.world.log("{} forms {} at {}", self.name, form, progress.plan_number)
        for index in set(self._leaving) - set(form.members):
            self.send(f"t{index}", "retire")
        self._leaving = []
        for index in form.members:
            self.send(f"t{index}", "form", form)
        self._is_training, self._reported = True, progress.plan_number
        return None

    def _break(self) -> None:
        """The generation cannot go on."""
        if self._is_training:
            self._is_training, self._forming = False, self._reform()

    def suspect(self, index: int) -> None:
        """A trainer seems to be dead, or is."""
        if index not in self.suspected:
            self.suspected.add(index)
            self.crew = [other for other in self.crew if other != index]
            self.world.log("{} suspects t{}", self.name, index)
            if index in self.members:
                self._break()

    # --- plans

    def _new_planner(self, progress: Progress) -> Planner:
        self.world.count("open spans" if progress.span is not None else "planners")
        return new_planner(progress, rng=self.world.rng, is_shuffled=self.world.is_shuffled)

    @property
    def _may_issue(self) -> bool:
        if not self._is_training or self.planner.is_barred or self.planner.plan_number - self._reported >= LOOKAHEAD:
            return False
        return not (self.planner.dealer.is_finished and self.checkpoints and self.checkpoints.is_pending)

    def _issue(self, planner: Planner, checkpoints: Checkpoints) -> None:
        chance, share = self.world.rng.random(), self.world.control_share
        is_last = planner.dealer.is_finished
        if chance < share / 4 and len(self.crew) < WORLD_SIZE:
            self.crew.append(self.world.spawn())
        if self.world.is_changing and self._changes(planner, share):
            return self._answer_pulls()
        if not is_last and set(self.crew) != set(self.members):
            planner.membership()
        elif is_last or chance < share:
            if not checkpoints.is_pending:
                checkpoints.issue(planner, is_last=is_last)
        else:
            checkpoints.rejects |= read(planner, rng=self.world.rng)
            planner.cut(now_s=0.0)
        return self._answer_pulls()

    def _changes(self, planner: Planner, share: float) -> bool:
        """A member is to leave, as on SIGTERM; or what is read changes, at a step that is issued now."""
        chance = self.world.rng.random()
        if chance < share / 4 and len(self.crew) > 1:
            self.world.count("leaves")
            self._leaving.append(self.crew.pop(self.world.rng.randrange(len(self.crew))))
        elif chance < share and (change := next_change(planner, rng=self.world.rng)).moves:
            self.world.count("moves")
            planner.change(change)
            return True
        return False

    def _answer_pulls(self) -> None:
        for index, after in list(self._pulls.items()):
            batch = self.planner.pull(self.members.index(index), after=after)
            if batch is not None:
                del self._pulls[index]
                self.send(f"t{index}", "plans", self.generation, batch)

    # --- what trainers say

    def on_wrote(self, sender: str, attempt: int, snapshot: Snapshot) -> None:
        is_member = int(sender[1:]) in set(self.members) - self.suspected  # one that is to leave is a member until it has left
        if self.checkpoints and is_member and (attempt == self._attempt or not self.rules.snapshot_tag):
            self.checkpoints.wrote(snapshot)

    def _concerns(self, generation: Generation) -> bool:
        return self.checkpoints is not None and generation == self.generation

    def on_standing(self, sender: str, generation: Generation, standing: Standing, progress: Progress) -> None:
        if self._forming is not None and generation == self.generation:
            self._answers[int(sender[1:])] = standing, progress

    def on_raised(self, sender: str, generation: Generation) -> None:
        if self._concerns(generation):
            self._break()

    def on_report(self, sender: str, generation: Generation, number: int) -> None:
        if self._is_training and generation == self.generation:
            self._reported = max(self._reported, number)
            self.planner.reported(number, ())

    def on_pull(self, sender: str, generation: Generation, after: int) -> None:
        if self._is_training and generation == self.generation:
            self._pulls[int(sender[1:])] = after
            self._answer_pulls()

    def on_arrived(self, sender: str, generation: Generation) -> None:
        if self._concerns(generation):
            self._arrived.add(int(sender[1:]))
            if self._arrived >= set(self.members):
                self._break()

    def on_fenced(self, sender: str, attempt: int) -> None:
        if self.checkpoints and attempt > self._attempt:
            self.die("exits: fenced by a trainer")
