"""The replica: weights, optimizer, buffers, scores, positions and log tail, and the one place where they move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from dtrain.data.usercode import UserCode
from dtrain.errors import InternalError, NonFiniteError, TaskError
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import in_words
from dtrain.steplog.tail import LogTail
from dtrain.train import plain
from dtrain.train.collective import Collective
from dtrain.train.copier import StateCopier
from dtrain.train.divergence import check_same, parts_of
from dtrain.train.gradient import GradientWriter, SpanBatch
from dtrain.train.layout import FlatLayout, FlatRow
from dtrain.train.numerics import fingerprint, seed_everything, seed_of
from dtrain.train.running_norm import RunningNorm
from dtrain.train.scores import ScoreBoard, Scorer
from dtrain.train.state import State, load_model, load_optimizer, model_tensors, optimizer_tensors
from dtrain.train.task import Task
from dtrain.train.update import Update


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
        with UserCode(type(task).__name__, doing="could not build its model:"):
            self.model = task.model(spec.params).to(device).train()
        self._update = Update(task, self.model, spec)
        self.scorer = Scorer(spec.evaluate.metrics, task=task)
        self.scores = ScoreBoard(self.scorer.size, window_rows=spec.evaluate.window)
        self.held_out_scores = ScoreBoard(self.scorer.size, window_rows=spec.evaluate.window, name="held_out")
        self._layout = FlatLayout(self.model, score_size=self.scorer.size, has_held_out=spec.evaluate.held_out > 0)
        self._norms = [module for module in self.model.modules() if isinstance(module, RunningNorm)]
        self._writer = GradientWriter(
            task,
            self.model,
            layout=self._layout,
            scorer=self.scorer,
            train=spec.train,
        )
        self.copier = StateCopier()
        self.progress = Progress()
        self.tail = LogTail()
        self.is_dirty = False
        self.join(None)

    def join(self, group: Collective | None) -> None:
        """From now on steps are summed over `group`. Its flat buffer is new: the old one belongs to the old group (invariant 4)."""
        self._group = group
        self._flat = self._layout.new_buffer(self._spec.batch.num_slices if self.is_exact else 1)

    def step(self, plan: Plan, batches: Sequence[SpanBatch]) -> None:
        """The next data step is in the weights, and everything else has moved with it.

        A step whose loss or gradient is not finite is left out where the job wants that; so is one that the log has left out. Then
        positions and log move alone, and the entry says so: on every rank, because all have the same sums.

        Collective: every rank of the group calls this with the same plan, whether or not it has rows.

        Args:
            plan: a data step, the next one, or its entry.
            batches: this rank's spans of it.

        Raises:
            CollectiveError: a rank was lost; nothing has changed.
            DivergenceError: the ranks do not have the same weights, as of the last step; asked every `train.check_every` steps.
            NonFiniteError: the loss or a gradient is NaN or infinite; nothing has changed, on any rank.
            TaskError: user code raised; nothing has changed, unless it was the optimizer's: then the replica is dirty.
        """
        group, flat, step, span = self._group, self._flat, self.progress.step + 1, self.progress.span
        if group is None:
            raise InternalError("a data step came before a group was joined")
        self._check_same(group)
        if plan.skipped:
            return self._apply(plan, None)
        ranges = plan.ranges or (span.ranges if span is not None else ())
        try:
            self._writer.write(flat, batches, step=step, num_rows=plan.num_rows)
        except TaskError as error:
            what, newline, places = error.reason.partition("\n")
            raise TaskError(f"{what}, at step {step}, rows of {in_words(ranges)}{newline}{places}", fix=error.fix) from error
        group.all_reduce_(flat.tensor)
        total = flat.add_up()
        if math.isfinite(float(flat.total_tensor[: self._layout.finite_width].sum())):
            return self._apply(plan, total)
        if self._spec.train.on_non_finite == "skip":
            return self._apply(replace(plan, skipped="non_finite"), None)
        what = "gradient" if bool(torch.isfinite(total.scores[1])) else "loss"
        raise NonFiniteError(
            f"the {what} is NaN or infinite at step {step}, rows of {in_words(ranges)}",
            fix="look at these rows, lower the learning rate, or set `train.clip_norm` or `train.on_non_finite: skip` in a new job",
        )

    def control(self, plan: Plan) -> None:
        """The control step `plan` is in the log; it moves positions over rows that are not trained, and no weights."""
        if plan.kind is StepKind.DATA or plan.num_rows:
            raise InternalError(f"plan {plan.number} is a data step")
        self._apply(plan, None)

    def _apply(self, plan: Plan, total: FlatRow | None) -> None:
        """Weights, buffers, schedule, scores, positions and log tail move here, together, and nowhere else (invariant 1)."""
        progress = self.progress.apply(plan)
        self.copier.wait()
        self.is_dirty = True
        if total is not None:
            self._layout.assign_gradients(total)
            seed_everything(seed_of(self._spec.train.seed, progress.step))  # an optimizer may be random: not by rank
            self._update.apply(self._layout.parameters)
            if self._layout.buffers:
                self._move_buffers(total)
            self.scores.add(total.scores, num_rows=plan.num_rows)
            if self._layout.has_held_out:
                self.held_out_scores.add(total.held_out, num_rows=sum(item.left_out.held_out for item in plan.ranges))
        self.progress = progress
        self.tail.append(plan, progress.log_hash)
        self.is_dirty = False

    def _check_same(self, group: Collective) -> None:
        done, every = self.progress.step, self._spec.train.check_every
        if group.world_size > 1 and every and done and done % every == 0:
            check_same(group, list(parts_of(self.model, self._update.optimizer)), step=done, device=self.device)

    def _move_buffers(self, total: FlatRow) -> None:
        with torch.no_grad():
            for buffer, change in zip(self._layout.buffers, total.changes, strict=True):
                if buffer.dtype == torch.bool:
                    buffer.logical_xor_(change > 0.5)
                else:
                    buffer += (change if buffer.is_floating_point() else change.round()).to(buffer.dtype)
        for norm in self._norms:
            norm.fold_step_()

    def seal(self, durable: Progress) -> None:
        """The log up to a durable checkpoint of this history is in its segments; the tail forgets it."""
        if durable.plan_number > self.tail.base and self.tail.hash_at(durable.plan_number) == durable.log_hash:
            self.progress = replace(self.progress, segments=durable.segments)
            self.tail.seal(durable.plan_number)

    def state(self) -> State:
        """A copy of the whole state."""
        present = self.present()
        return replace(present, tensors={name: tensor.to("cpu", copy=True) for name, tensor in present.tensors.items()})

    def snapshot(self) -> State:
        """A copy of the whole state in kept memory, made while the next step is computed: see `StateCopier.reading`."""
        present = self.present()
        forwards_change = {f"model/{name}" for name, _ in self.model.named_buffers(remove_duplicate=False)}
        now = {n: t for n, t in present.tensors.items() if n in forwards_change or n.startswith(("scores/", "held_out/"))}
        behind = {n: t for n, t in present.tensors.items() if n not in now}
        return replace(present, tensors=self.copier.copy(now, behind))

    def reserve_snapshot(self) -> None:
        """Memory for a first snapshot is made ready in the background."""
        self.copier.reserve(self.present().tensors)

    def present(self) -> State:
        """The state itself: the next apply block changes its tensors."""
        self._layout.check(found=f", found at step {self.progress.step}")
        tensors, groups = optimizer_tensors(self._update.optimizer)
        notes = {"optimizer": groups}
        if self._update.schedule is not None:
            notes["scheduler"] = plain.write(self._update.schedule.state_dict(), what="the schedule")
        named = {**model_tensors(self.model), **tensors, **self.scores.state()}
        if self._layout.has_held_out:
            named.update(self.held_out_scores.state())
        return State(named, notes, self.progress, self.tail.copy())

    def adopt(self, state: State) -> None:
        """The replica is `state` from now on, whatever it was: the one way to recover, from a checkpoint or from a peer.

        Raises:
            DriftError: the state is that of another model or optimizer; the replica is dirty then.
        """
        self.copier.wait()
        self.is_dirty = True
        load_model(self.model, state.tensors)
        load_optimizer(self._update.optimizer, state.tensors, state.notes["optimizer"])
        if self._update.schedule is not None and "scheduler" in state.notes:
            self._update.schedule.load_state_dict(plain.read(state.notes["scheduler"]))
        self.scores.load(state.tensors)
        if self._layout.has_held_out:
            self.held_out_scores.load(state.tensors)
        self.progress = state.progress
        self.tail = state.tail.copy() if state.tail is not None else _no_tail(state.progress)
        self.is_dirty = False

    def stand_at(self, progress: Progress) -> None:
        """Where the replica stands is called `progress`: its first positions, or the same place with its log sealed."""
        self.progress = progress
        self.tail = _no_tail(progress)

    @property
    def numerics(self) -> dict[str, str]:
        """What must be equal for a bitwise replay."""
        return fingerprint(self._spec.train.numerics, device=self.device.type)


def _no_tail(progress: Progress) -> LogTail:
    return LogTail(progress.plan_number, progress.log_hash)
