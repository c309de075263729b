"""What the peers of P6 and P7 train, and the trace that they leave. Imports torch alone: each runs in an environment of its own."""

from __future__ import annotations

import argparse
import os
import struct
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

NUM_FEATURES = 16
ROWS = 256
"""Of a step, over all ranks."""
NUM_BLOCKS = 16
HIDDEN = 128

_RECORD = struct.Struct("<Qd")


class Trace:
    """This process's applied steps, as `dtrain.runtime.trace` writes them; beside it which rank this is.

    Args:
        folder: of the traces.
        rank: of this process.
    """

    def __init__(self, folder: Path, *, rank: int) -> None:
        self._file = os.open(folder / f"{os.getpid()}.trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        scratch = folder / f"rank-{rank}.{os.getpid()}"
        scratch.write_text(str(os.getpid()), encoding="ascii")
        scratch.replace(folder / f"rank-{rank}")

    def applied(self, number: int) -> None:
        """The step is in the file."""
        os.write(self._file, _RECORD.pack(number, time.monotonic()))


def arguments() -> argparse.Namespace:
    """What the benchmark asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--timeout-s", type=float, default=0.0)
    parser.add_argument("--is-aggressive", action="store_true")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world-size", type=int, default=1)
    return parser.parse_args()


def build() -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model of every system in P6, and its optimizer."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = (nn.Linear(NUM_FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    model = nn.Sequential(*layers)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)  # as dtrain.Task.optimizer


def batches(*, world_size: int) -> list[tuple[Tensor, Tensor]]:
    """A rank's share of NUM_BLOCKS different steps."""
    found = []
    for _ in range(NUM_BLOCKS):
        x = torch.randn(ROWS // world_size, NUM_FEATURES)
        found.append((x, (x.sum(1) > 0).float()))
    return found


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Any:
    """Mean loss of a batch."""
    x, y = batch
    return binary_cross_entropy_with_logits(model(x)[:, 0], y)


def save(file: Path, *, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A checkpoint that is there as a whole or not at all."""
    scratch = file.with_suffix(".partial")
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, scratch)
    scratch.replace(file)
