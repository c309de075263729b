"""What the job file says of the optimizer: clipping, weight decay, schedules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dtrain.errors import TaskError
from dtrain.spec.job import ScheduleSpec
from dtrain.train.update import Update, rate_share
from tests.support.ranks import MixedTask, spec


class Grouped(MixedTask):
    """An optimizer with a group that has no weight decay."""

    decays = (0.01, 0.0)

    def optimizer(self, model, params):  # type: ignore[no-untyped-def]
        groups = zip(model.parameters(), self.decays, strict=True)
        return torch.optim.SGD([{"params": [p], "weight_decay": decay} for p, decay in groups], lr=1.0)


class Undecayed(Grouped):
    decays = (0.0, 0.0)


class KnowsNoDecay(MixedTask):
    def optimizer(self, model, params):  # type: ignore[no-untyped-def]
        return torch.optim.LBFGS(model.parameters())


class BadOptimizer(MixedTask):
    def optimizer(self, model, params):  # type: ignore[no-untyped-def]
        return torch.optim.SGD(model.parameters(), lr=-1.0)


def _update(task: MixedTask, **train: object) -> tuple[nn.Linear, Update]:
    model = nn.Linear(3, 1)
    return model, Update(task, model, spec(numerics="fast", train=train, without_schedule=True))


@pytest.mark.parametrize(
    ("name", "floor", "at"),
    [
        ("constant", 0.0, {1: 0.25, 3: 0.75, 4: 1.0, 5: 1.0, 1000: 1.0}),
        ("linear", 0.0, {2: 0.5, 4: 1.0, 8: 0.5, 12: 0.0, 1000: 0.0}),
        ("linear", 0.2, {4: 1.0, 8: 0.6, 12: 0.2, 1000: 0.2}),
        ("cosine", 0.0, {4: 1.0, 6: (1 + math.cos(math.pi / 4)) / 2, 8: 0.5, 12: 0.0, 1000: 0.0}),
    ],
)
def test_schedule_gives_the_share_of_the_rate_at_each_step(name: str, floor: float, at: dict[int, float]) -> None:
    schedule = ScheduleSpec(name=name, warmup_steps=4, total_steps=12, floor=floor)  # type: ignore[arg-type]
    assert {step: rate_share(schedule, step - 1) for step in at} == pytest.approx(at)


def test_schedule_of_the_job_file_is_stepped_with_the_optimizer() -> None:
    model, update = _update(Grouped(), schedule={"name": "linear", "warmup_steps": 1, "total_steps": 3})
    moved = []
    for _ in range(4):
        before = model.bias.detach().clone()
        model.bias.grad = torch.ones(1)
        update.apply([model.bias])
        moved.append(float(before - model.bias.detach()))
    assert moved == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=1e-6)


def test_two_schedules_are_refused() -> None:
    job = spec(numerics="fast", train={"schedule": {"name": "constant"}})
    with pytest.raises(TaskError, match=r"MixedTask.scheduler and `train.schedule` both"):
        Update(MixedTask(), nn.Linear(3, 1), job)


@pytest.mark.parametrize(("task", "decays"), [(Grouped(), [0.3, 0.0]), (Undecayed(), [0.3, 0.3])])
def test_weight_decay_of_the_job_file_wins_but_in_groups_left_out_of_it(task: MixedTask, decays: list[float]) -> None:
    _, update = _update(task, weight_decay=0.3)
    assert [group["weight_decay"] for group in update.optimizer.param_groups] == decays


def test_weight_decay_for_an_optimizer_without_is_refused() -> None:
    with pytest.raises(TaskError, match="knows no weight decay"):
        _update(KnowsNoDecay(), weight_decay=0.3)


@pytest.mark.parametrize(("clip_norm", "moved"), [(0.0, 5.0), (10.0, 5.0), (0.5, 0.5)])
def test_gradient_longer_than_clip_norm_is_scaled(clip_norm: float, moved: float) -> None:
    model, update = _update(Undecayed(), clip_norm=clip_norm)
    before = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    model.weight.grad, model.bias.grad = torch.tensor([[0.0, 3.0, 0.0]]), torch.tensor([4.0])
    update.apply(list(model.parameters()))
    after = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    assert float((before - after).norm()) == pytest.approx(moved, rel=1e-4)


def test_optimizer_that_cannot_be_built_is_the_tasks_fault() -> None:
    with pytest.raises(TaskError, match=r"BadOptimizer could not build its optimizer: ValueError: Invalid learning rate"):
        _update(BadOptimizer())
