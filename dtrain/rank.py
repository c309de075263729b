"""A rank: a replica with what it needs to take part, whoever drives it: a Ray actor, or a job in one process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import torch

from dtrain.checkpoint.manifest import Blob, Snapshot
from dtrain.checkpoint.store import CheckpointStore
from dtrain.policy.cutting import Piece
from dtrain.snapshot import read_state, write_snapshot
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Entry, Plan
from dtrain.steplog.positions import Positions
from dtrain.steplog.progress import Progress
from dtrain.steplog.report import TrainReport
from dtrain.train.collective import Collective
from dtrain.train.gradient import SpanBatch
from dtrain.train.loading import load_task
from dtrain.train.replica import Replica
from dtrain.train.stager import Stager
from dtrain.train.state import State


class Rank:
    """One member's side of training.

    Args:
        spec: the job.
        store: of its checkpoints.

    Raises:
        TaskError: the task cannot be imported or built.
    """

    def __init__(self, spec: JobSpec, store: CheckpointStore) -> None:
        torch.set_num_threads(1)  # one a rank: more would not be the same arithmetic everywhere
        self._spec = spec
        self._store = store
        self._task = load_task(spec.task, code=spec.code)
        self.replica = Replica(self._task, spec, device=torch.device("cuda" if spec.workers.gpus else "cpu"))
        self._stager: Stager | None = None
        self._newest_ms = 0
        self._steps_s: list[float] = []

    @property
    def schema(self) -> dict[str, str]:
        """The task's columns."""
        return self._task.features.to_json()

    def genesis(self, positions: Positions) -> Snapshot:
        """The fresh replica stands at `positions`; its state is in the store, for checkpoint 0."""
        self.replica.stand_at(Progress(positions=positions))
        return self.write(*self.copy())

    def load(self, *, blob: Blob, progress: Progress) -> None:
        """The replica is what the checkpoint holds; where it is that already, only its log tail is let go."""
        here = self.replica.progress
        is_there = (here.log_hash, here.positions) == (progress.log_hash, progress.positions)
        if is_there and not self.replica.is_dirty:
            self.replica.stand_at(progress)
        else:
            self.replica.adopt(read_state(self._store, blob=blob, progress=progress))

    def join(self, group: Collective) -> None:
        """Steps are summed over `group` from now on."""
        self.replica.join(group)
        self._stager = Stager(
            self._task.features,
            num_slices=self._spec.batch.num_slices,
            is_exact=self.replica.is_exact,
            rank=group.rank,
            world_size=group.world_size,
            device=self.replica.device,
        )

    @property
    def stager(self) -> Stager:
        """Of the present generation."""
        if self._stager is None:
            raise RuntimeError("join a group first")
        return self._stager

    def stage(self, pieces: Sequence[Piece], blocks: Mapping[int, pa.RecordBatch], *, num_rows: int) -> list[SpanBatch]:
        """This rank's rows of a step, as tensors."""
        return self.stager.stage(pieces, blocks, num_rows=num_rows)

    def step(self, plan: Plan, batches: Sequence[SpanBatch], *, newest_ms: int) -> None:
        """The data step is applied; see `Replica.step`."""
        began_s = time.perf_counter()
        self.replica.step(plan, batches)
        self._steps_s.append(time.perf_counter() - began_s)
        self._newest_ms = max(self._newest_ms, newest_ms)

    def copy(self) -> tuple[State, tuple[Entry, ...]]:
        """State and log tail, to be written behind while training goes on."""
        return self.replica.state(), tuple(self.replica.tail)

    def write(self, state: State, tail: Sequence[Entry]) -> Snapshot:
        """State and log tail are in the store. May run in another thread than the one that trains."""
        return write_snapshot(self._store, state, tail, self.replica.numerics)

    def report(self) -> TrainReport:
        """Where the replica stands and how well it predicts; forgets the step times that it tells."""
        scorer, window, total = self.replica.scorer, self.replica.scores.window(), self.replica.scores.total
        steps_s, self._steps_s = self._steps_s, []
        return TrainReport(
            progress=replace(self.replica.progress, segments=()),  # they grow with the job, and nobody asks here
            newest_ms=self._newest_ms,
            loss=float(window[1] / window[0]) if window[0] else None,
            scores=scorer.values(window),
            total_loss=float(total[1] / total[0]) if total[0] else None,
            total_scores=scorer.values(total),
            steps_s=steps_s,
        )
