"""The update: what makes new weights of a step's gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from dtrain.data.usercode import UserCode
from dtrain.errors import TaskError
from dtrain.spec.job import JobSpec, ScheduleSpec
from dtrain.train.task import Task


class Update:
    """The task's optimizer and schedule, with what the job file says of them.

    The job file's weight decay and schedule stand in place of the task's.

    Args:
        task: the user's.
        model: whose parameters move.
        spec: the job.

    Raises:
        TaskError: the task could not build them, they cannot do what the job file wants, or both have a schedule.
    """

    def __init__(self, task: Task, model: nn.Module, spec: JobSpec) -> None:
        self._clip_norm = spec.train.clip_norm
        self._user_code = UserCode(type(task).__name__, doing="raised in its optimizer or schedule")
        with UserCode(type(task).__name__, doing="could not build its optimizer:"):
            self.optimizer: Optimizer = task.optimizer(model, spec.params)
            own = task.scheduler(self.optimizer, spec.params)
        if spec.train.weight_decay != "task":
            _set_weight_decay(self.optimizer.param_groups, spec.train.weight_decay)
        self.schedule: LRScheduler | None = own
        if isinstance(spec.train.schedule, ScheduleSpec):
            if own is not None:
                raise TaskError(
                    f"{type(task).__name__}.scheduler and `train.schedule` both give a schedule",
                    fix="let `scheduler` give None, or write `schedule: task`",
                )
            self.schedule = LambdaLR(self.optimizer, partial(rate_share, spec.train.schedule))

    def apply(self, parameters: Sequence[nn.Parameter]) -> None:
        """Weights, optimizer and schedule have made one step with the gradients of `parameters`, which may be scaled.

        Raises:
            TaskError: user code raised; weights and optimizer are undefined.
        """
        if self._clip_norm:
            nn.utils.clip_grad_norm_(parameters, self._clip_norm)
        with self._user_code:
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()


def rate_share(schedule: ScheduleSpec, done: int) -> float:
    """The share of the full learning rate for the step behind `done` steps: a function of that number alone."""
    step = done + 1
    if step <= schedule.warmup_steps:
        return step / schedule.warmup_steps
    if schedule.name == "constant":
        return 1.0
    passed = min(1.0, (step - schedule.warmup_steps) / (schedule.total_steps - schedule.warmup_steps))
    left = 1 - passed if schedule.name == "linear" else (1 + math.cos(math.pi * passed)) / 2
    return schedule.floor + (1 - schedule.floor) * left


def _set_weight_decay(groups: Sequence[dict[str, Any]], value: float) -> None:
    """The groups that had weight decay have `value` in its place; where none had any, all have it."""
    if not all("weight_decay" in group for group in groups):
        raise TaskError(
            "the task's optimizer knows no weight decay", fix="use one that does, as AdamW, or write `weight_decay: task`"
        )
    is_none_decayed = not any(group["weight_decay"] for group in groups)
    for group in groups:
        if group["weight_decay"] or is_none_decayed:
            group["weight_decay"] = value
