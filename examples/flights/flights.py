"""Will this flight arrive more than 15 minutes late, or not at all? Asked when it is put into the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

import dtrain

NUM_IDS = {"carrier": 64, "origin": 8, "dest": 512, "hour": 24, "weekday": 7}
NUM_NUMBERS = 8


class DelayTask(dtrain.Task):
    """A binary classifier over embeddings and a few quantities."""

    features = dtrain.Schema(dict.fromkeys(NUM_IDS, "int64") | {"numbers": f"float32[{NUM_NUMBERS}]", "late": "float32"})
    label = "late"

    def model(self, params: Mapping[str, Any]) -> nn.Module:
        """`params`: hidden (widths of the hidden layers), dropout, embedding (numbers for each id)."""
        return DelayModel(hidden=params["hidden"], dropout=params["dropout"], embedding=params["embedding"])

    def scheduler(self, optimizer: torch.optim.Optimizer, params: Mapping[str, Any]) -> LRScheduler | None:
        """With `freeze_after_steps` learning ends there, and the model is only scored from then on."""
        last = params.get("freeze_after_steps")
        return None if last is None else LambdaLR(optimizer, lambda step: float(step < last))

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Binary cross-entropy, [rows]."""
        return binary_cross_entropy_with_logits(outputs, batch["late"], reduction="none")

    def predict(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """The probability of being late, [rows]."""
        return outputs.sigmoid()


class DelayModel(nn.Module):
    """An embedding for each column of ids, beside the quantities, into a perceptron."""

    def __init__(self, *, hidden: list[int], dropout: float, embedding: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict({name: nn.Embedding(size, embedding) for name, size in NUM_IDS.items()})
        for weight in self.embeddings.parameters():
            nn.init.normal_(weight, std=0.05)
        widths = [len(NUM_IDS) * embedding + NUM_NUMBERS, *hidden]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Dropout(dropout)]
        self.perceptron = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, *, numbers: Tensor, **ids: Tensor) -> Tensor:
        """Log-odds of being late, [rows]. `numbers` is [rows, NUM_NUMBERS]; each column of ids [rows]."""
        embedded = [table(ids[name]) for name, table in self.embeddings.items()]  # each [rows, embedding]
        logits: Tensor = self.perceptron(torch.cat([*embedded, numbers], dim=1))[:, 0]
        return logits
