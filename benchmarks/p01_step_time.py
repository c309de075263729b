"""P1: the time of a step with its data in memory, against bare `torchrun` DDP.

Two ranks over gloo, one thread each, the same model, rows, seed and optimizer, both started by torchrun. dtrain's step is the whole
of it: rows copied from Arrow blocks into private buffers, forward, losses a row, scores, the flat buffer, one all-reduce, the apply
block with positions, log entry and running hash. DDP's is zero_grad, forward, mean loss, backward with its all-reduce, optimizer.
Both train the same rows, and their weights are compared at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure, alternate

NUM_RANKS = 2
SAME = 1e-4
"""Largest relative difference of the weights' norms for which both have trained the same thing."""


@dataclass(frozen=True, slots=True)
class Size:
    """A model and a step: `hidden` widths, `rows` of all ranks in a step, how many `steps` are timed after `warmup`."""

    figure: str
    hidden: str
    rows: int
    steps: int
    warmup: int
    goal: float


SIZES = (
    Size("step_ms_small", hidden="128,128", rows=512, steps=600, warmup=60, goal=1.10),
    Size("step_ms_large", hidden="1024,1024", rows=1024, steps=150, warmup=12, goal=1.02),
)


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure every size."""
    for size in SIZES:
        norms: dict[str, float] = {}
        print(f" {size.figure}: hidden {size.hidden}, {size.rows} rows a step")
        measured = alternate(lambda: _measure("dtrain", size, norms), lambda: _measure("ddp", size, norms), pairs=pairs)  # noqa: B023
        if abs(norms["dtrain"] / norms["ddp"] - 1) > SAME:
            raise SystemExit(f"dtrain and its peer have trained different things: norms of the weights {norms}")
        yield Figure.of(measured, id="P1", figure=size.figure, peer_name=f"torchrun {version('torch')} DDP", goal=size.goal)


def _measure(side: str, size: Size, norms: dict[str, float]) -> float:
    """Median milliseconds a step on rank 0 of one run of a side."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        script = Path(__file__).parent / f"p01_{side}.py"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={NUM_RANKS}"]
        options = [f"--hidden={size.hidden}", f"--rows={size.rows}", f"--steps={size.steps}", f"--warmup={size.warmup}"]
        done = subprocess.run(
            [*launch, str(script), *options, f"--out={out}"],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{script.name} failed:\n{done.stderr[-3000:]}")
        result = json.loads(out.read_text(encoding="utf-8"))
    norms[side] = result["norm"]
    return float(result["step_ms"])


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
