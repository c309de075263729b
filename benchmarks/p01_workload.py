"""P1's workload: the same model, rows and clock for both sides."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import dtrain

Numbers = npt.NDArray[np.float32]

NUM_FEATURES = 16
NUM_BLOCKS = 16
"""Steps' worth of different rows that are kept in memory and gone through in turn."""


class PerceptronTask(dtrain.Task):
    """A binary classifier of NUM_FEATURES numbers."""

    features = dtrain.Schema({"x": f"float32[{NUM_FEATURES}]", "y": "float32"})
    label = "y"

    def model(self, params: Mapping[str, Any]) -> nn.Module:
        """`params`: hidden, widths."""
        return Perceptron(params["hidden"])

    def loss(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Binary cross-entropy, [rows]."""
        return binary_cross_entropy_with_logits(outputs, batch["y"], reduction="none")


class Perceptron(nn.Module):
    """NUM_FEATURES numbers → log-odds."""

    def __init__(self, hidden: list[int]) -> None:
        super().__init__()
        widths = [NUM_FEATURES, *hidden]
        layers: list[nn.Module] = []
        for index in range(len(hidden)):
            layers += [nn.Linear(widths[index], widths[index + 1]), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds, [rows]."""
        odds: Tensor = self.layers(x)[:, 0]
        return odds


def arguments() -> argparse.Namespace:
    """What the benchmark asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--warmup", type=int)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def rows(num_rows: int) -> list[tuple[Numbers, Numbers]]:
    """NUM_BLOCKS different steps of rows: x [num_rows, NUM_FEATURES] and y [num_rows].

    Labels are drawn, not computed: a model that gets every row right has gradients so small (denormal) that a CPU takes twice
    as long for a step, on whichever side that happens first.
    """
    random = np.random.default_rng(0)
    weights = random.standard_normal(NUM_FEATURES).astype(np.float32)
    found = []
    for _ in range(NUM_BLOCKS):
        x = random.standard_normal((num_rows, NUM_FEATURES)).astype(np.float32)
        chances = 1 / (1 + np.exp(-x @ weights / 2))
        found.append((x, (random.random(num_rows) < chances).astype(np.float32)))
    return found


def timed(step: Callable[[int], None], *, args: argparse.Namespace, model: nn.Module) -> None:
    """Make all steps; rank 0 leaves the median time of those after the warm-up, and the norm of the weights, in `args.out`."""
    times: list[float] = []
    for number in range(args.warmup + args.steps):
        began_s = time.perf_counter()
        step(number)
        times.append(time.perf_counter() - began_s)
    if os.environ["RANK"] == "0":
        norm = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]).norm().item()
        args.out.write_text(json.dumps({"step_ms": median(times[args.warmup :]) * 1000, "norm": norm}), encoding="utf-8")
