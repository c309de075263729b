"""A row's weight multiplies its loss; the mean stays over the rows, whoever computes them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import dtrain
from dtrain.snapshot import encode_state
from dtrain.steplog.entries import Plan
from dtrain.train.replica import Replica
from tests.support.ranks import MixedTask, new_replica, spec, steps, train

COLUMNS = {"x": "float32[6]", "kind": "int64", "y": "float32"}


class Weighted(MixedTask):
    features = dtrain.Schema({**COLUMNS, "w": dtrain.Column("float32", is_weight=True)})


class ByHand(MixedTask):
    """The same in the user's own words."""

    features = dtrain.Schema({**COLUMNS, "w": "float32"})

    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        return model(x=batch["x"], kind=batch["kind"])

    def loss(self, outputs, batch):  # type: ignore[no-untyped-def]
        return super().loss(outputs, batch) * batch["w"]


def weighted_steps() -> list[tuple[Plan, dict[str, Tensor]]]:
    return [(plan, {**columns, "w": torch.arange(plan.num_rows) % 4 / 2}) for plan, columns in steps(30)]


def trained(task: type[MixedTask], world_size: int) -> Replica:
    job = spec(numerics="exact")
    replicas = [new_replica(job, task()) for _ in range(world_size)]
    train(job, replicas, weighted_steps())
    return replicas[0]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_weighted_rows_train_as_if_the_loss_were_multiplied_by_hand(world_size: int) -> None:
    assert encode_state(trained(Weighted, world_size).state()) == encode_state(trained(ByHand, 1).state())
