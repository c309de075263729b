"""The world of one history: processes, faults, detectors, and a scheduler that a seed decides."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from dtrain.checkpoint.manifest import Manifest
from dtrain.clock import SystemClock
from dtrain.errors import InternalError
from dtrain.spec.job import JobSpec
from tests.simulation.coordinator import Coordinator
from tests.simulation.disk import Disk
from tests.simulation.oracle import Oracle
from tests.simulation.process import Generation, Group, Process, ViolationError
from tests.simulation.rules import RuledStore, Rules
from tests.simulation.trainer import Form, Trainer

SPEC = JobSpec.model_validate(
    {
        "name": "simulated",
        "task": "none:None",
        "source": {"topic": "topic", "bootstrap": "localhost:9092"},
        "checkpoint": {"to": "/nowhere", "keep": 2},
    }
)
FAULTS = (
    *("kill trainer", "pause trainer", "suspect", "launch", "kill coordinator", "pause coordinator", "kill trainers"),
    *("kill trainer", "kill coordinator", "kill all", "unreadable", "damage"),
)
STORMS = (FAULTS, FAULTS[:2], FAULTS[:4], FAULTS[:5], FAULTS[1:6], FAULTS[3:6], FAULTS[4:6])
"""Faults that come in one history: few kinds at a time find more than all at once."""
QUIET_AT, FAIR_AT, STUCK_AT, AFTER_END = 400, 800, 4000, 60
"""Events after which no fault comes, after which every process moves alike, after which a job is stuck; and events after the end."""


class _Clock(SystemClock):
    """Counts events: a history depends on its seed alone."""

    def __init__(self, world: World) -> None:
        self._world = world

    def wall_s(self) -> float:
        return float(self._world.events)


class World:
    """One history. `run` raises ViolationError when an invariant breaks."""

    def __init__(
        self, seed: int, rules: Rules, *, is_traced: bool = False, is_shuffled: bool = False, is_changing: bool = False
    ) -> None:
        self.is_shuffled = is_shuffled
        self.is_changing = is_changing
        self.rng, self.rules, self.spec, self.clock = random.Random(seed), rules, SPEC, _Clock(self)
        self.trace: list[str] = []
        self.is_traced = is_traced
        self.counts: Counter[str] = Counter()
        self.processes: dict[str, Process] = {}
        self._trainers: list[Trainer] = []
        self._coordinators: list[Coordinator] = []
        self._groups: dict[Generation, Group] = {}
        self.disk = Disk()
        self.store = RuledStore(self.disk, rules)
        self.oracle = Oracle(self)
        self.events, self.done = 0, None  # type: int, Manifest | None
        self._faults = self.rng.choice(STORMS)
        self._faults_left = self.rng.choice((0, 2, 4, 8, 12, 20))
        self._wake_rate = self.rng.choice((0.01, 0.05, 0.2))
        self._fault_rate = self.rng.choice((0.01, 0.03, 0.06, 0.15))
        self.blob_speed = self.rng.choice((0.02, 0.1, 0.3))
        self.store_speed = self.rng.choice((0.05, 0.2, 0.7))
        self.control_share = self.rng.choice((0.08, 0.15, 0.35))
        self._launch()

    # --- what processes see

    def log(self, form: str, *values: Any) -> None:
        if self.is_traced:
            self.trace.append(form.format(*values))

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def trainer(self, index: int) -> Trainer:
        return self._trainers[index]

    def live_trainers(self) -> list[int]:
        return [trainer.index for trainer in self._trainers if not trainer.is_dead]

    def spawn(self) -> int:
        """A fresh trainer."""
        trainer = Trainer(self, len(self._trainers))
        self._trainers.append(trainer)
        self.processes[trainer.name] = trainer
        return trainer.index

    def group(self, form: Form) -> Group:
        if form.generation not in self._groups:
            self._groups[form.generation] = Group(self, form.generation, form.members, form.source)
        return self._groups[form.generation]

    def strikes(self, chance: float) -> bool:
        """Whether a fault comes here, if there are any left."""
        is_hit = self._faults_left > 0 and self.rng.random() < chance
        self._faults_left -= is_hit
        return is_hit

    def succeed(self, coordinator: Coordinator, manifest: Manifest) -> None:
        self.oracle.effect("succeeded", manifest.ref)
        self.done = self.done or manifest
        coordinator.die(f"says SUCCEEDED of {manifest.name}")

    # --- one event after the other

    def run(self) -> None:
        after = 0
        try:
            while after < AFTER_END and self.events < STUCK_AT:
                self.events += 1
                after += self.done is not None
                self._event()
                self.oracle.look()
            if self.done is None:
                raise ViolationError("stuck: the job has not succeeded")
            self.oracle.end()
        except InternalError as error:
            raise ViolationError(f"inv 2: {error.reason}") from error
        finally:
            for coordinator in self._coordinators:
                coordinator.die("is over")

    def _event(self) -> None:
        if self.events > QUIET_AT:
            self._faults_left = 0
        chance = self.rng.random()
        if chance < self._fault_rate and self._faults_left > 0:
            self._faults_left -= 1
            self._strike()
        elif chance < self._fault_rate + 0.08:
            self._look_after()
        else:
            self._move()

    def _move(self) -> None:
        live = [p for p in self.processes.values() if not (p.is_dead or p.is_paused or p.is_idle)]
        chance = self.rng.random() * sum(self._weight(process) for process in live)
        for process in live:
            chance -= self._weight(process)
            if chance < 0:
                return process.turn()
        return None

    def _weight(self, process: Process) -> int:
        return process.weight if self.events < FAIR_AT else 1

    def _launch(self) -> None:
        coordinator = Coordinator(self, len(self._coordinators) + 1)
        self._coordinators.append(coordinator)
        self.processes[coordinator.name] = coordinator
        self.log("c{} is launched", coordinator.incarnation)

    # --- faults

    def _strike(self) -> None:
        fault = self.rng.choice(self._faults)
        trainers = [trainer for trainer in self._trainers if not trainer.is_dead]
        coordinators = [coordinator for coordinator in self._coordinators if not coordinator.is_dead]
        self.count(fault)
        if fault == "launch" and self.done is None:
            self._launch()
        elif fault == "kill all":
            self._kill(*trainers, *coordinators)
        elif fault == "kill trainers":
            self._kill(*trainers)
        elif fault == "suspect" and coordinators:
            accuser = self.rng.choice(coordinators)
            if accuser.members:
                accuser.suspect(self.rng.choice(accuser.members))
        elif fault in ("unreadable", "damage"):
            self._spoil(fault)
        else:
            self._hit_one(fault, trainers if fault.endswith("trainer") else coordinators)

    def _hit_one(self, fault: str, processes: list[Trainer] | list[Coordinator]) -> None:
        if not processes or fault == "launch" or fault == "suspect":
            return
        process = self.rng.choice(processes)
        if fault.startswith("kill"):
            self._kill(process)
        else:
            process.is_paused = True
            self.log("{} is paused", process.name)

    def _kill(self, *processes: Process) -> None:
        for process in processes:
            process.die("is killed")

    def _spoil(self, fault: str) -> None:
        """The newest checkpoint's manifest cannot be read for a while, or for ever; in that case another is left."""
        if len(self.oracle.line) > 1:
            ref = self.oracle.line[-1]
            name = f"manifests/{ref.name}.json"
            self.log("{}: {}", fault, ref.name)
            if fault == "unreadable":
                self.disk.unreadable.add(name)
            else:
                self.oracle.damaged.add(ref)
                self.disk.damage(name)

    # --- detectors, wake-ups, and a control plane that keeps one coordinator alive

    def _look_after(self) -> None:
        latest = self._coordinators[-1]
        if self.done is None and (latest.is_dead or (latest.is_paused and self.rng.random() < 0.1)):
            return self._launch()
        for process in list(self.processes.values()):
            if process.is_paused and (self.rng.random() < self._wake_rate or self._faults_left == 0):
                process.is_paused = False
                self.log("{} wakes", process.name)
        for coordinator in self._coordinators:
            self._detect(coordinator)
            if self._faults_left == 0 and coordinator is not latest and self.events > FAIR_AT:
                self._kill(coordinator)
        if self._faults_left == 0:
            self._kill(*(self._trainers[index] for index in latest.suspected if not self._trainers[index].is_dead))
        if self.disk.unreadable and self.rng.random() < 0.1:
            self.disk.unreadable = set()
            self.log("what was unreadable can be read")
        return None

    def _detect(self, coordinator: Coordinator) -> None:
        if coordinator.is_dead or coordinator.is_paused:
            return
        for index in sorted({*coordinator.crew, *coordinator.members}):
            trainer = self._trainers[index]
            if trainer.is_dead or (trainer.is_paused and self.rng.random() < 0.3):
                coordinator.suspect(index)
