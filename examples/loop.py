"""The same training without dtrain: a plain PyTorch loop in one process, which takes nothing of dtrain's but the user's task."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dtrain import Task
from examples.steplog import Rows

Weights = Mapping[str, Tensor]


@dataclass(slots=True)
class Trained:
    """What the loop came to.

    Args:
        rows: numbers of the rows, in the order in which they were trained.
        predicted: for each, by the model before it was trained on it.
        losses: for each, likewise.
        weights: by the step behind which they were kept.
    """

    rows: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)
    weights: dict[int, Weights] = field(default_factory=dict)


def train(
    task: Task, params: Mapping[str, Any], columns: Weights, steps: Iterable[Rows], *, begin: Weights, keep: Collection[int]
) -> Trained:
    """Train on `steps`, from the weights `begin`; each row is scored before it is trained on.

    Args:
        task: gives model, optimizer, forward, loss and prediction.
        params: the task's.
        columns: name → all rows of the table.
        steps: the rows of each.
        begin: the model's tensors.
        keep: the steps behind which the weights are kept.
    """
    torch.set_num_threads(1)  # as each of dtrain's workers has: more would round otherwise
    model = task.model(params)
    model.load_state_dict(begin)
    optimizer = task.optimizer(model, params)
    trained = Trained()
    for step, numbers in enumerate(steps, 1):
        rows = torch.from_numpy(numbers)
        batch = {name: column[rows] for name, column in columns.items()}
        outputs = task.forward(model, batch)
        losses = task.loss(outputs, batch)
        optimizer.zero_grad()
        losses.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        trained.rows.append(rows)
        trained.losses.append(losses.detach())
        predicted = task.predict(outputs, batch)
        trained.predicted.append((outputs if predicted is None else predicted).detach())
        if step in keep:
            trained.weights[step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return trained


def difference(ours: Weights, theirs: Weights) -> float:
    """‖ours − theirs‖ / ‖theirs‖ over all tensors together."""
    apart = sum(float((ours[name].double() - tensor.double()).square().sum()) for name, tensor in theirs.items())
    return float((apart / sum(float(tensor.double().square().sum()) for tensor in theirs.values())) ** 0.5)


def is_equal(ours: Weights, theirs: Weights) -> bool:
    """Whether every bit is the same."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
