"""A generation, as one member lives it. With `trainer.py`, all of the runtime that imports torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dtrain.errors import DtrainError, InternalError
from dtrain.rank import Rank
from dtrain.runtime.messages import Assignment
from dtrain.runtime.pulling import PlanPuller, StagedPlan
from dtrain.steplog.entries import Entry, StepKind
from dtrain.train.group import TorchCollective
from dtrain.train.state import State

_REPORT_EVERY_S = 0.05


class Generation:
    """One membership of the group, as one member lives it: a thread that pulls and stages, and one that trains."""

    def __init__(
        self,
        rank: Rank,
        group: TorchCollective,
        assignment: Assignment,
        coordinator: Any,
        writer: ThreadPoolExecutor,
    ) -> None:
        self._rank = rank
        self._group = group
        self._key = (assignment.attempt, assignment.generation)
        self._coordinator = coordinator
        self._writer = writer
        self._puller = PlanPuller(
            rank.stager, coordinator, key=self._key, rank=group.rank, after=rank.replica.progress.plan_number
        )
        self._reported_s = 0.0
        self._error: DtrainError | None = None
        self._thread = threading.Thread(target=self._train, name=f"train-{assignment.prefix}", daemon=True)
        self._thread.start()

    def end(self) -> DtrainError | None:
        """Nothing of this generation is applied any more when this returns what it raised before."""
        self._puller.close()
        self._group.abandon()
        self._thread.join()
        return self._error

    def _train(self) -> None:
        try:
            for staged in self._puller:
                self._execute(staged)
        except DtrainError as error:
            self._raised(error)
        except Exception as error:  # the top of a thread: whatever it was, the coordinator decides
            self._raised(InternalError(f"{type(error).__name__}: {error}"))

    def _execute(self, staged: StagedPlan) -> None:
        for segment in staged.sealed:
            self._rank.replica.seal(segment)
        plan = staged.issued.plan
        if plan.kind is StepKind.DATA:
            self._rank.step(plan, staged.batches, newest_ms=staged.issued.newest_ms)
        else:
            self._rank.replica.control(plan)
        if self._group.rank == 0:
            self._tell(is_control=plan.kind is not StepKind.DATA)

    def _tell(self, *, is_control: bool) -> None:
        now_s = time.monotonic()
        if is_control:
            state, tail = self._rank.copy()
            self._writer.submit(self._write, state, tail)
        if is_control or now_s - self._reported_s >= _REPORT_EVERY_S or self._puller.is_starved:
            self._reported_s = now_s
            self._coordinator.report.remote(self._key, self._rank.report())

    def _write(self, state: State, tail: Sequence[Entry]) -> None:
        try:
            self._coordinator.wrote.remote(self._key, self._rank.write(state, tail), None)
        except DtrainError as error:
            self._coordinator.wrote.remote(self._key, None, error)
        except Exception as error:  # the top of a thread
            self._coordinator.wrote.remote(self._key, None, InternalError(f"{type(error).__name__}: {error}"))

    def _raised(self, error: DtrainError) -> None:
        self._error = error
        self._puller.close()
        self._group.abandon()
        self._coordinator.raised.remote(self._key, self._group.rank, error)
