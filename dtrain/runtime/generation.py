"""A generation, as one member lives it. With `trainer.py`, all of the runtime that imports torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dtrain.errors import DtrainError, InternalError
from dtrain.policy.lease import Phase
from dtrain.rank import Rank
from dtrain.runtime.messages import Assignment
from dtrain.runtime.pulling import PlanPuller, StagedPlan
from dtrain.runtime.trace import step_trace
from dtrain.steplog.entries import Entry, StepKind
from dtrain.train.group import TorchCollective
from dtrain.train.state import State

_REPORT_EVERY_S = 0.05


class Generation:
    """One membership of the group, as one member lives it: a thread that trains, beside the one that pulls and stages."""

    def __init__(
        self,
        rank: Rank,
        group: TorchCollective,
        assignment: Assignment,
        puller: PlanPuller,
        coordinator: Any,
        writer: ThreadPoolExecutor,
    ) -> None:
        self._rank = rank
        self._group = group
        self._assignment = assignment
        self._key = assignment.key
        self._coordinator = coordinator
        self._writer = writer
        self._puller = puller
        self._reported_s = 0.0
        self._error: DtrainError | None = None
        self._at_work = 0  # plan number of the step that is being computed; 0 between steps
        self._thread = threading.Thread(target=self._train, name=f"train-{assignment.prefix}", daemon=True)
        self._thread.start()

    def end(self) -> DtrainError | None:
        """Nothing of this generation is applied any more when this returns what it raised before."""
        self._puller.close()
        self._group.abandon()
        self._thread.join()
        return self._error

    def place(self) -> tuple[Phase, int, float]:
        """What the training thread does, at which plan, and how many seconds it takes for a row. From any thread."""
        number = self._at_work
        phase = Phase.COLLECTIVE if self._group.is_waiting else Phase.WORK if number else Phase.IDLE
        return phase, number, self._rank.row_s

    def _train(self) -> None:
        try:
            for staged in self._puller:
                self._execute(staged)
        except DtrainError as error:
            self._raised(error)
        except Exception as error:  # the top of a thread: whatever it was, the coordinator decides
            self._raised(InternalError(f"{type(error).__name__}: {error}"))

    def _execute(self, staged: StagedPlan) -> None:
        if staged.sealed is not None:
            self._rank.replica.seal(staged.sealed)
        plan = staged.issued.plan
        self._at_work = plan.number
        if plan.kind is StepKind.DATA:
            self._rank.step(plan, staged.batches, newest_ms=staged.issued.newest_ms)
            step_trace().applied(plan.number)
        else:
            self._rank.replica.control(plan)
        self._at_work = 0
        if self._group.rank == 0:
            self._tell(plan.kind)
        if plan.kind is StepKind.MEMBERSHIP:
            self._coordinator.arrived.remote(self._key, self._group.rank)

    def _tell(self, kind: StepKind) -> None:
        now_s = time.monotonic()
        if kind is StepKind.CHECKPOINT:
            state, tail = self._rank.copy()
            self._writer.submit(self._write, state, tail)
        if (
            self._assignment.is_careful
            or kind is not StepKind.DATA
            or now_s - self._reported_s >= _REPORT_EVERY_S
            or self._puller.is_starved
        ):
            self._reported_s = now_s
            self._coordinator.report.remote(self._key, self._rank.report())

    def _write(self, state: State, tail: Sequence[Entry]) -> None:
        attempt, member = self._assignment.attempt, self._assignment.member
        try:
            self._coordinator.wrote.remote(attempt, member, self._rank.write(state, tail), None)
        except DtrainError as error:
            self._coordinator.wrote.remote(attempt, member, None, error)
        except Exception as error:  # the top of a thread
            self._coordinator.wrote.remote(attempt, member, None, InternalError(f"{type(error).__name__}: {error}"))

    def _raised(self, error: DtrainError) -> None:
        self._error = error
        self._puller.close()
        self._group.abandon()
        self._coordinator.raised.remote(self._key, self._group.rank, error)
