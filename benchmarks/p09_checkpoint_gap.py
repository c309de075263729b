"""P9: by how much a checkpoint delays training, against `torch.save` with fsync and DCP's `async_save`.

One process that trains a perceptron with AdamW, whose state (weights and optimizer) is 100 or 400 MB, and saves it now and then to
the local disk. The gap is the longest time from one applied step to the next after a save, less the median without one; the time
lost is that of all steps until the next save. dtrain's save is what a trainer does: the control step in the log, a snapshot, the
blob with its digest and the log segment, synced. Warm: each side has saved once before.
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
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure

GOAL_MS = 30.0
PEERS = {"torch_save": "torch.save and fsync", "dcp": "DCP async_save"}


@dataclass(frozen=True, slots=True)
class Size:
    """A model whose state is `name` large: `hidden` widths, `rows` of a step."""

    name: str
    hidden: str
    rows: int


SIZES = (Size("100mb", hidden="2048,2048,2048", rows=64), Size("400mb", hidden="4096,4096,4096", rows=64))


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure every size; the sides in turn."""
    for size in SIZES:
        measured: dict[str, list[dict[str, float]]] = {side: [] for side in ("dtrain", *PEERS)}
        for number in range(1, pairs + 1):
            for side, found in measured.items():
                found.append(_measure(side, size))
                print(f"  {size.name} round {number}: {side} {_told(found[-1])}", flush=True)
        for what, goal in (("gap_ms", GOAL_MS), ("lost_ms", GOAL_MS)):
            for peer, name in PEERS.items():
                yield Figure.absolute(
                    median(found[what] for found in measured["dtrain"]),
                    id="P9",
                    figure=f"{what}_{size.name}",
                    goal=goal,
                    peer=median(found[what] for found in measured[peer]),
                    peer_name=f"{name} (torch {version('torch')})",
                    pairs=pairs,
                )


def _measure(side: str, size: Size) -> dict[str, float]:
    """One run of a side, on the disk that holds the temporary files."""
    with TemporaryDirectory() as folder:
        script = Path(__file__).with_name("p09_loop.py")
        options = [side, f"--hidden={size.hidden}", f"--rows={size.rows}", f"--folder={folder}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, str(script), *options], env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise SystemExit(f"{script.name} {side} failed:\n{done.stderr[-3000:]}")
        found: dict[str, float] = json.loads(Path(folder, "out.json").read_text(encoding="utf-8"))
        return found


def _told(found: dict[str, float]) -> str:
    return ", ".join(f"{what} {value:.1f}" for what, value in found.items())
