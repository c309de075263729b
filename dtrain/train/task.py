"""What a user writes: a model, and a loss for each row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dtrain.data.schema import Schema

Batch = Mapping[str, Tensor]
"""Column name → tensor [rows, *shape]. Private to the step: in-place operations harm nobody."""


class Task:
    """A model, its optimizer, and its loss per row. dtrain owns the rest: loop, stream, device, reduction, saving.

    Subclass it, set `features`, and write `model`, `loss` and, for scores, `predict`. Keep no state outside the module: what a
    replica must not forget belongs into its parameters and buffers.
    """

    features: ClassVar[Schema]
    """The columns, by name and type; checked against the stream."""

    label: ClassVar[str] = ""
    """The column that `predict` is scored against; needed for metrics besides the loss."""

    def model(self, params: Mapping[str, Any]) -> nn.Module:
        """A fresh module. Called with the job's seed set, so that initial weights are the same everywhere."""
        raise NotImplementedError

    def optimizer(self, model: nn.Module, params: Mapping[str, Any]) -> torch.optim.Optimizer:
        """The optimizer; AdamW with `params["lr"]` (1e-3) and `params["weight_decay"]` (0.01) unless overridden."""
        return torch.optim.AdamW(
            model.parameters(),
            lr=float(params.get("lr", 1e-3)),
            weight_decay=float(params.get("weight_decay", 0.01)),
            fused=True,  # on the CPU too it takes a third of the time
        )

    def scheduler(
        self,
        optimizer: torch.optim.Optimizer,  # noqa: ARG002
        params: Mapping[str, Any],  # noqa: ARG002
    ) -> torch.optim.lr_scheduler.LRScheduler | None:
        """A schedule of the learning rate, stepped once per data step; None for a constant one."""
        return None

    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """What `loss` and `predict` need, e.g. logits. By default the model gets every column but label and weight, by name."""
        return model(**{name: column for name, column in batch.items() if name not in (self.label, self.features.weight)})

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """One loss a row, [rows]: that makes a step independent of how its rows are spread over workers.

        Each is multiplied by the row's weight, where `features` has one; the mean is over the rows all the same.
        """
        raise NotImplementedError

    def predict(self, outputs: Any, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """Scores to compare with the label, from the same forward, before the row is trained on.

        [rows] probabilities of class 1 for a binary label, or [rows, classes] for more. None for none.
        """
        return None
