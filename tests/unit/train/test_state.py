"""An optimizer that adopts is as the one whose state it took, to the type of every tensor."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from dtrain.train.state import load_optimizer, optimizer_tensors


class Counts(Optimizer):
    """Counts in int64 beyond what a float32 can hold, and keeps a mean in float32 whatever the parameter is."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["count"] = state.get("count", torch.zeros(3, dtype=torch.int64)) + 16_777_217
            state["mean"] = state.get("mean", torch.zeros(3, dtype=torch.float32)) + 1 / 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("make", [Counts, torch.optim.NAdam, torch.optim.ASGD, torch.optim.AdamW])
def test_optimizer_that_adopts_has_the_same_tensors(make: type[Optimizer], dtype: torch.dtype) -> None:
    first, second = (make([nn.Parameter(torch.ones(3, dtype=dtype))]) for _ in range(2))  # type: ignore[call-arg]
    first.param_groups[0]["params"][0].grad = torch.full((3,), 0.1, dtype=dtype)
    first.step()
    tensors, notes = optimizer_tensors(first)
    load_optimizer(second, tensors, notes)
    adopted, _ = optimizer_tensors(second)
    assert {name: tensor.dtype for name, tensor in adopted.items()} == {name: tensor.dtype for name, tensor in tensors.items()}
    assert all(torch.equal(adopted[name], tensor) for name, tensor in tensors.items())
