"""Which digit is this? A small convolutional network over images of 8 by 8 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dtrain


class DigitsTask(dtrain.Task):
    """Ten classes. `pngs.py` makes the columns of what is in the topic."""

    features = dtrain.Schema({"pixels": "float32[1,8,8]", "digit": "int64"})
    label = "digit"

    def model(self, params: Mapping[str, Any]) -> nn.Module:
        """`params`: channels of the first convolution."""
        return DigitsModel(channels=params["channels"])

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy, [rows]."""
        return cross_entropy(outputs, batch["digit"], reduction="none")

    def predict(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """The probability of each digit, [rows, 10]."""
        return outputs.softmax(dim=1)


class DigitsModel(nn.Module):
    """Two convolutions and a linear layer. No batch normalisation: a row comes out the same whatever rows are with it."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * channels * 4 * 4, 10),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores of the ten digits, [rows, 10]; `pixels` is [rows, 1, 8, 8]."""
        scores: Tensor = self.layers(pixels)
        return scores
