"""P8's workload: one weight a record id. Afterwards a weight is -1 if its record was trained once, 0 if it was lost, -2 if doubled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import dtrain


class AuditTask(dtrain.Task):
    """Loss: the sum of the weights looked up; SGD at rate 1 and `reduction: sum`."""

    features = dtrain.Schema({"id": "int64"})

    def model(self, params: Mapping[str, Any]) -> nn.Module:
        """`params`: num_ids."""
        return audited(params["num_ids"])

    def optimizer(self, model: nn.Module, params: Mapping[str, Any]) -> torch.optim.Optimizer:  # noqa: ARG002
        """One off a weight for each time that it is looked up."""
        return torch.optim.SGD(model.parameters(), lr=1.0)

    def forward(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Weights, [rows, 1]."""
        weights: Tensor = model(batch["id"])
        return weights

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """The weights themselves, [rows]."""
        return outputs.squeeze(1)


def audited(num_ids: int) -> nn.Embedding:
    """A weight of zero for each id."""
    model = nn.Embedding(num_ids, 1)
    nn.init.zeros_(model.weight)
    return model
