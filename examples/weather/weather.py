"""How many flights will leave this airport in the next hour? An LSTM over the last day's departures and weather."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import dtrain

HOURS, NUM_PAST, NUM_COMING = 24, 9, 7
SCALE = 20.0
"""Flights an hour, about: the model forecasts in this unit, so that its outputs are about one in size."""


class DeparturesTask(dtrain.Task):
    """A regression, whose loss is the squared error in flights."""

    features = dtrain.Schema(
        {"past": f"float32[{HOURS},{NUM_PAST}]", "coming": f"float32[{NUM_COMING}]", "departures": "float32"}
    )
    label = "departures"

    def model(self, params: Mapping[str, Any]) -> nn.Module:
        """`params`: hidden (of the LSTM and of the layer behind it)."""
        return DeparturesModel(hidden=params["hidden"])

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Squared error, [rows]."""
        return (outputs - batch["departures"]) ** 2


class DeparturesModel(nn.Module):
    """The LSTM's last state beside what is known of the coming hour, into a perceptron."""

    def __init__(self, *, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(NUM_PAST, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(hidden + NUM_COMING, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, past: Tensor, coming: Tensor) -> Tensor:
        """Flights that will leave, [rows]; `past` is [rows, HOURS, NUM_PAST], `coming` [rows, NUM_COMING]."""
        states, _ = self.lstm(past)  # [rows, HOURS, hidden]
        forecast: Tensor = self.head(torch.cat([states[:, -1], coming], dim=1))[:, 0] * SCALE
        return forecast
