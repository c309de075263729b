"""A rank: a replica with what it needs to take part, whoever drives it: a Ray actor, or a job in one process."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dtrain.checkpoint.manifest import Blob, Snapshot
from dtrain.checkpoint.store import CheckpointStore
from dtrain.policy.slices import slices_of
from dtrain.snapshot import read_state, write_snapshot
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Entry, Plan
from dtrain.steplog.positions import Positions
from dtrain.steplog.progress import Progress
from dtrain.steplog.report import TrainReport
from dtrain.steplog.window import RejectWindow
from dtrain.train.collective import Collective, InlineCollective
from dtrain.train.gradient import SpanBatch
from dtrain.train.handover import Channel, receive_state, send_state
from dtrain.train.loading import load_task
from dtrain.train.replica import Replica
from dtrain.train.stager import Stager
from dtrain.train.state import State

_MAX_STEPS = 10_000
"""Step times that are kept until they are told; a replay never tells them."""


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
        self._is_first_step_of_lowest = False
        self._newest_ms = 0
        self._steps_s: deque[float] = deque(maxlen=_MAX_STEPS)  # rank 0's: nobody asks the others for a report
        self._group: Collective = InlineCollective()
        self.row_s = 0.0
        """Seconds of computing for a row of this rank, lately; 0 before its first step."""

    @property
    def schema(self) -> dict[str, Any]:
        """The task's columns."""
        return self._task.features.to_json()

    def genesis(self, positions: Positions) -> Snapshot:
        """The fresh replica stands at `positions`; its state is in the store, for checkpoint 0."""
        self.replica.stand_at(Progress(positions=positions, window=RejectWindow(self._spec.source.reject_window)))
        return write_snapshot(self._store, self.replica.present(), (), self.replica.numerics)

    def load(self, *, blob: Blob, progress: Progress) -> None:
        """The replica is what the checkpoint holds; where it is that already, only its log tail is let go."""
        here = self.replica.progress
        is_there = (here.log_hash, here.positions) == (progress.log_hash, progress.positions)
        if is_there and not self.replica.is_dirty:
            self.replica.stand_at(progress)
        else:
            self.replica.adopt(read_state(self._store, blob=blob, progress=progress))

    def exchange(self, channel: Channel, *, is_source: bool) -> None:
        """All ranks of `channel` have the state of its source."""
        if is_source:
            send_state(self.replica.present(), channel)
        else:
            self.replica.adopt(receive_state(channel))

    def begin(self, group: Collective) -> None:
        """Steps are summed over `group` from now on."""
        self.replica.join(group)
        self._group = group
        self._steps_s.clear()
        self._is_first_step_of_lowest = group.rank == 0

    def begin_alone(self) -> Stager:
        """This rank is the only one from now on; what copies the rows of its steps: all of them."""
        self.begin(InlineCollective())
        return self.new_stager(0, shares=(self._spec.batch.num_slices,))

    def new_stager(self, rank: int, *, shares: Sequence[int]) -> Stager:
        """What copies the rows of `rank`."""
        return Stager(
            self._task.features,
            num_slices=self._spec.batch.num_slices,
            is_exact=self.replica.is_exact,
            slices=slices_of(rank, shares=shares),
            device=self.replica.device,
        )

    def step(self, plan: Plan, batches: Sequence[SpanBatch], *, newest_ms: int) -> None:
        """The data step is applied; see `Replica.step`."""
        began_s, waited_s = time.perf_counter(), self._group.waited_s
        self.replica.step(plan, batches)
        step_s = time.perf_counter() - began_s
        if self._group.rank == 0:
            self._steps_s.append(step_s)
        num_rows = sum(item.span.stop - item.span.start for item in batches)
        if num_rows:
            self.row_s += 0.1 * ((step_s - self._group.waited_s + waited_s) / num_rows - self.row_s)
        if self._is_first_step_of_lowest:  # only now does the optimizer have all its tensors
            self._is_first_step_of_lowest = False
            self.replica.reserve_snapshot()
        self._newest_ms = max(self._newest_ms, newest_ms)

    def copy(self) -> tuple[State, tuple[Entry, ...]]:
        """State and log tail, to be written behind while training goes on."""
        return self.replica.snapshot(), tuple(self.replica.tail)

    def write(self, state: State, tail: Sequence[Entry]) -> Snapshot:
        """State and log tail, as `copy` gave them, are in the store. May run in another thread than the one that trains.

        Raises:
            UnavailableError: a later copy was made before this one's turn came.
            StorageError: the store cannot be written.
        """
        with self.replica.copier.reading(state.tensors):
            return write_snapshot(self._store, state, tail, self.replica.numerics)

    def report(self) -> TrainReport:
        """Where the replica stands and how well it predicts; forgets the step times that it tells."""
        scorer, window, total = self.replica.scorer, self.replica.scores.window(), self.replica.scores.total
        unseen = self.replica.held_out_scores.window()
        steps_s = list(self._steps_s)
        self._steps_s.clear()
        return TrainReport(
            progress=replace(self.replica.progress, segments=()),  # they grow with the job, and nobody asks here
            newest_ms=self._newest_ms,
            loss=_mean_loss(window),
            scores=scorer.values(window),
            total_loss=_mean_loss(total),
            total_scores=scorer.values(total),
            held_out_loss=_mean_loss(unseen),
            held_out_scores=scorer.values(unseen),
            steps_s=steps_s,
        )


def _mean_loss(sums: Tensor) -> float | None:
    """Loss a row; None without rows, and where it is not finite, which only held-out rows' can be."""
    loss = float(sums[1] / sums[0]) if sums[0] else math.nan
    return loss if math.isfinite(loss) else None
