"""A trainer: a replica that applies plans in generations, answers coordinators, and writes snapshots."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dtrain.checkpoint.manifest import Manifest, Snapshot
from dtrain.errors import CorruptError
from dtrain.policy.election import Standing
from dtrain.runtime.messages import PlanBatch
from dtrain.steplog.entries import Entry, Plan, StepKind
from dtrain.steplog.progress import Progress
from dtrain.steplog.tail import LogTail
from tests.simulation.process import Generation, Group, Process
from tests.simulation.stream import brief

if TYPE_CHECKING:
    from tests.simulation.world import World

Weights = tuple[Entry | str, ...]
"""What went into the weights, in order: it stands for them, and is for the oracle alone."""


@dataclass
class Replica:
    """The counterpart of `train.replica.Replica`, with the real progress and log tail."""

    progress: Progress = field(default_factory=Progress)
    tail: LogTail = field(default_factory=LogTail)
    weights: Weights = ()
    is_dirty: bool = False

    def apply(self, entry: Entry) -> None:
        self.progress = self.progress.apply(entry)
        self.weights = (*self.weights, entry)
        self.tail.append(entry, self.progress.log_hash)

    def seal(self, durable: Progress) -> None:
        if durable.plan_number > self.tail.base and self.tail.hash_at(durable.plan_number) == durable.log_hash:
            self.progress = replace(self.progress, segments=durable.segments)
            self.tail.seal(durable.plan_number)

    def copy(self) -> Replica:
        return replace(self, tail=self.tail.copy())


@dataclass(frozen=True)
class Form:
    """What a coordinator tells the members of a new generation; `load` is for all of them, instead of a source."""

    generation: Generation
    members: tuple[int, ...]
    source: int
    behind: frozenset[int]
    load: Manifest | None

    def __str__(self) -> str:
        origin = self.load.name if self.load else f"t{self.source}, behind {set(self.behind) or 'nobody'}"
        return f"{self.generation} of {self.members} from {origin}"


class Trainer(Process):
    def __init__(self, world: World, index: int) -> None:
        super().__init__(world, f"t{index}")
        self.index = index
        self.replica = Replica()
        self.generation: Generation = (0, 0)  # the highest that was asked about
        self._coordinator = ""
        self._confirmed = 0  # the attempt in which the replica's state was confirmed
        self._is_forming = self._is_receiving = self._has_sent = self._is_pulling = False
        self._form: Form | None = None
        self._group: Group | None = None
        self._staged: deque[tuple[Plan, Progress | None]] = deque()
        self._in_flight: Plan | None = None
        self._snapshots: list[tuple[int, Replica]] = []

    @property
    def is_idle(self) -> bool:
        is_training = self._group is not None and (self._is_forming or self._in_flight or self._staged or not self._is_pulling)
        return not (self._inbox or self._snapshots or is_training)

    def turn(self) -> None:
        if self.receives():
            return
        if self._snapshots and self.world.rng.random() < self.world.blob_speed:
            self._write(*self._snapshots.pop(0))
        elif self._group is not None and self._is_forming:
            self._join(self._group)
        elif self._group is not None and self._in_flight is not None:
            self._end(self._group, self._in_flight)
        elif self._group is not None and self._staged:
            self._begin(self._group)
        elif self._group is not None and not self._is_pulling:
            self._pull()

    # --- steps

    def _pull(self) -> None:
        self._is_pulling = True
        after = self._staged[-1][0].number if self._staged else self.replica.progress.plan_number
        self._say("pull", after)

    def on_plans(self, sender: str, generation: Generation, batch: PlanBatch) -> None:
        if generation == self.generation and self._is_pulling:
            self._is_pulling, sealed = False, batch.sealed
            for issued in batch.plans:
                self._staged.append((issued.plan, sealed))
                sealed = None

    def _begin(self, group: Group) -> None:
        if len(self._staged) <= 1 and not self._is_pulling:
            self._pull()
        plan, sealed = self._staged.popleft()
        if sealed is not None:
            self.replica.seal(sealed)
        if plan.kind is StepKind.DATA:
            self._in_flight = plan
            group.contribute(self.index, plan)
        else:
            self._apply(group, plan)

    def _end(self, group: Group, plan: Plan) -> None:
        result = group.result(self.index)
        if result is False:
            self._raise(group, "collective")
        elif result and self.world.strikes(0.01):
            self.replica.is_dirty, self.replica.weights = True, (*self.replica.weights, "torn")
            self._raise(group, f"apply of {plan.number}")
        elif result:
            self._in_flight = None
            self._apply(group, plan)

    def _raise(self, group: Group, what: str) -> None:
        self.world.log("{}: {} raised in {} at {}", self.name, what, self.generation, self.replica.progress.plan_number)
        group.dropped.add(self.index)
        self._leave_generation()
        self._say("raised")

    def _apply(self, group: Group, plan: Plan) -> None:
        self.replica.apply(plan)
        self.world.log("{} applied {}", self.name, brief(plan) if self.world.is_traced else plan)
        self.world.oracle.see(self)
        if self.index == group.lowest:
            self._say("report", plan.number)
            if plan.kind is StepKind.CHECKPOINT:
                self._snapshots.append((self.generation[0], self.replica.copy()))
        if plan.kind is StepKind.MEMBERSHIP:
            self._say("arrived")

    def _write(self, attempt: int, replica: Replica) -> None:
        """As `snapshot.write_snapshot`."""
        store = self.world.store
        progress = replica.progress.seal(store.put_segment(tuple(replica.tail))) if len(replica.tail) else replica.progress
        snapshot = Snapshot(progress, store.put_blob(self.world.oracle.encode(replica.weights)), {})
        self.send(self._coordinator, "wrote", attempt, snapshot)

    def _say(self, word: str, *rest: object) -> None:
        self.send(self._coordinator, word, self.generation, *rest)

    # --- generations

    def on_query(self, sender: str, generation: Generation, parent_number: int) -> None:
        if generation < self.generation and self.rules.attempt_check:
            self.send(sender, "fenced", self.generation[0])
            return
        heard, self.generation, self._coordinator = self.generation, generation, sender
        if self.rules.promise:
            self._leave_generation()
        progress = self.replica.progress
        is_torn = (self._is_receiving and self.rules.adopt_atomic) or (self.replica.is_dirty and self.rules.dirty_check)
        confirmed = self._confirmed if self.rules.confirmed or not self._confirmed else heard[0]
        parent_hash = self.replica.tail.hash_at(parent_number)
        standing = Standing(confirmed, progress.plan_number, progress.log_hash, not is_torn, parent_hash)
        self.send(sender, "standing", generation, standing, progress)

    def _leave_generation(self) -> None:
        """Nothing more is applied under it."""
        self._group = self._in_flight = None
        self._is_forming = self._has_sent = self._is_pulling = False
        self._staged.clear()

    def on_form(self, sender: str, form: Form) -> None:
        if form.generation != self.generation and self.rules.attempt_check:
            return
        self._leave_generation()
        self.generation, self._coordinator, self._form, self._is_forming = form.generation, sender, form, True
        self._group = self.world.group(form)
        self._group.arrived.add(self.index)
        if form.load is None and self.index not in form.behind:
            self._confirmed = form.generation[0]

    def _join(self, group: Group) -> None:
        """The group forms, then who is behind receives the source's state over it, then all train."""
        assert self._form is not None
        if not group.has_formed():
            if group.is_broken:
                self._raise(group, "formation")
        elif self._form.load is not None:
            self._load(group, self._form.load)
        elif self.index in self._form.behind:
            if group.is_broken and not self._inbox:
                self._raise(group, "exchange")
        else:
            self._hand_over(self._form)

    def _hand_over(self, form: Form) -> None:
        """The source sends its state in two pieces; who is not the source has nothing to do."""
        behind = sorted(form.behind) if self.index == form.source else []
        for index in behind:
            self.send(f"t{index}", "chunk", self.generation, self.replica.copy(), self._has_sent)
        self._has_sent = not self._has_sent
        if not behind or not self._has_sent:
            self._enter()

    def _load(self, group: Group, manifest: Manifest) -> None:
        """As `Rank.load`: a replica that is there already only lets go of its log tail."""
        here, there = self.replica.progress, manifest.progress
        weights = self.replica.weights
        if (here.log_hash, here.positions) != (there.log_hash, there.positions) or self.replica.is_dirty:
            try:
                weights = self.world.oracle.decode(self.world.store.read_blob(manifest.blob))
            except CorruptError:
                return self._raise(group, "load")
        self.replica, self._is_receiving = Replica(there, LogTail(there.plan_number, there.log_hash), weights), False
        return self._enter()

    def on_retire(self, sender: str) -> None:
        """It is not a member any more."""
        self.die("retires")

    def on_chunk(self, sender: str, generation: Generation, replica: Replica, is_whole: bool) -> None:
        """State from the source, written in place: until its second half is here, there is none."""
        if generation == self.generation and self._is_forming:
            self._is_receiving = not is_whole
            if is_whole:
                self.replica = replica
                self._enter()
            else:
                self.replica.weights = ("torn", *self.replica.weights)

    def _enter(self) -> None:
        self._confirmed, self._is_forming = self.generation[0], False
        self.world.oracle.see(self)
