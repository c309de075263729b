"""The replica: weights, optimizer, buffers, scores, positions and log tail, and the one place where they move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dtrain.errors import InternalError, NonFiniteError, TaskError
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Entry, Plan, StepKind
from dtrain.steplog.progress import Progress
from dtrain.steplog.segments import Segment
from dtrain.train import plain
from dtrain.train.collective import Collective
from dtrain.train.gradient import GradientWriter, SpanBatch
from dtrain.train.layout import FlatLayout, FlatRow
from dtrain.train.numerics import fingerprint, seed_of
from dtrain.train.scores import ScoreBoard, Scorer
from dtrain.train.state import State, load_model, load_optimizer, model_tensors, optimizer_tensors
from dtrain.train.task import Task


class Replica:
    """One rank's copy of the job's state.

    Threads: one at a time. `is_dirty` says that an apply block did not come to its end: such a replica is never a source.

    Args:
        task: the user's.
        spec: the job.
        device: where the weights are.
    """

    def __init__(self, task: Task, spec: JobSpec, *, device: torch.device) -> None:
        self._spec = spec
        self.device = device
        self.is_exact = spec.train.numerics == "exact"
        torch.manual_seed(seed_of(spec.train.seed))
        self.model, self._optimizer, self._scheduler = _build(task, spec.params, device)
        self.scorer = Scorer(spec.evaluate.metrics, task=task)
        self.scores = ScoreBoard(self.scorer.size, window_rows=spec.evaluate.window)
        self._layout = FlatLayout(self.model, score_size=self.scorer.size)
        self._writer = GradientWriter(
            task,
            self.model,
            layout=self._layout,
            scorer=self.scorer,
            seed=spec.train.seed,
            is_mean=spec.train.reduction == "mean",
        )
        self.progress = Progress()
        self.tail: list[Entry] = []
        self.is_dirty = False
        self.join(None)

    def join(self, group: Collective | None) -> None:
        """From now on steps are summed over `group`. Its flat buffer is new: the old one belongs to the old group (invariant 4)."""
        self._group = group
        self._flat = self._layout.new_buffer(self._spec.batch.num_slices if self.is_exact else 1)

    def step(self, plan: Plan, batches: Sequence[SpanBatch]) -> None:
        """The next data step is in the weights, and everything else has moved with it.

        Collective: every rank of the group calls this with the same plan, whether or not it has rows.

        Args:
            plan: a data step, the next one.
            batches: this rank's spans of it.

        Raises:
            CollectiveError: a rank was lost; nothing has changed.
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing has changed, on any rank.
            TaskError: user code raised; nothing has changed.
        """
        group, flat = self._group, self._flat
        if group is None:
            raise InternalError("a data step came before a group was joined")
        self._writer.write(flat, batches, step=self.progress.step + 1, num_rows=plan.num_rows)
        group.all_reduce_(flat.tensor)
        total = flat.add_up()
        if not math.isfinite(float(flat.total_tensor.sum())):
            raise NonFiniteError(_describe_non_finite(plan, total.scores), fix="lower the learning rate, or look at these rows")
        self._layout.assign_gradients(total)
        self._apply(plan, total)

    def control(self, plan: Plan) -> None:
        """The control step `plan` is in the log; it moves positions over rows that are not trained, and no weights."""
        if plan.kind is StepKind.DATA or plan.num_rows:
            raise InternalError(f"plan {plan.number} is a data step")
        self._apply(plan, None)

    def _apply(self, plan: Plan, total: FlatRow | None) -> None:
        """Weights, buffers, schedule, scores, positions and log tail move here, together, and nowhere else (invariant 1)."""
        progress = self.progress.apply(plan)
        self.is_dirty = True
        if total is not None:
            self._optimizer.step()
            self._move_buffers(total)
            if self._scheduler is not None:
                self._scheduler.step()
            self.scores.add(total.scores)
        self.progress = progress
        self.tail.append(plan)
        self.is_dirty = False

    def _move_buffers(self, total: FlatRow) -> None:
        with torch.no_grad():
            for buffer, change in zip(self._layout.buffers, total.changes, strict=True):
                if buffer.dtype == torch.bool:
                    buffer.logical_xor_(change > 0.5)
                else:
                    buffer += (change if buffer.is_floating_point() else change.round()).to(buffer.dtype)

    def seal(self, segment: Segment) -> None:
        """The log up to `segment.last` is durable; the tail forgets it."""
        if self.progress.segments and segment.last <= self.progress.segments[-1].last:
            return
        self.progress = self.progress.seal(segment)
        self.tail = [entry for entry in self.tail if entry.number > segment.last]

    def state(self) -> State:
        """A copy of the whole state, the log tail apart."""
        tensors, groups = optimizer_tensors(self._optimizer)
        notes = {"optimizer": groups}
        if self._scheduler is not None:
            notes["scheduler"] = plain.write(self._scheduler.state_dict(), what="the schedule")
        scores = {name: tensor.clone() for name, tensor in self.scores.state().items()}
        return State({**model_tensors(self.model), **tensors, **scores}, notes, self.progress)

    def adopt(self, state: State) -> None:
        """The replica is `state` from now on, whatever it was: the one way to recover, from a checkpoint or from a peer.

        The log tail is empty afterwards: a state's progress ends with its last sealed segment.

        Raises:
            DriftError: the state is that of another model or optimizer; the replica is dirty then.
        """
        self.is_dirty = True
        load_model(self.model, state.tensors)
        load_optimizer(self._optimizer, state.tensors, state.notes["optimizer"])
        if self._scheduler is not None and "scheduler" in state.notes:
            self._scheduler.load_state_dict(plain.read(state.notes["scheduler"]))
        self.scores.load(state.tensors)
        self.progress = state.progress
        self.tail = []
        self.is_dirty = False

    def stand_at(self, progress: Progress) -> None:
        """Where the replica stands is called `progress`: its first positions, or the same place with its log sealed."""
        self.progress = progress
        self.tail = []

    @property
    def numerics(self) -> dict[str, str]:
        """What must be equal for a bitwise replay."""
        return fingerprint(self._spec.train.numerics, device=self.device.type)


def _build(task: Task, params: Mapping[str, Any], device: torch.device) -> tuple[Any, Any, Any]:
    try:
        model = task.model(params).to(device).train()
        optimizer = task.optimizer(model, params)
        return model, optimizer, task.scheduler(optimizer, params)
    except Exception as error:  # user code may raise anything
        raise TaskError(
            f"{type(task).__name__} could not build its model or optimizer: {type(error).__name__}: {error}",
            fix="correct the task or `params`",
        ) from error


def _describe_non_finite(plan: Plan, scores: Tensor) -> str:
    what = "loss" if not bool(torch.isfinite(scores[1])) else "gradient"
    places = ", ".join(f"{r.partition} from {tuple(r.start)} to {tuple(r.end)}" for r in plan.ranges)
    return f"the {what} is NaN or infinite at step {plan.number}, rows of {places}"
