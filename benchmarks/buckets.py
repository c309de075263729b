"""Whether buckets that are reduced while backward still runs beat one flat buffer behind it, by size of the model.

Two processes over gloo, one thread each; a stack of square layers. Both ways in the same processes, step by step in turn, so that a busy machine
slows both. Flat: gradients are copied into one buffer behind backward, one all-reduce. Buckets: a hook copies each gradient into its place in
that buffer, and hands over a bucket of BUCKET numbers as soon as it is full; behind backward all are waited for. Parts: as flat, but in parts of
BUCKET numbers that are all handed over at once: what of the gain is not overlap.

    python -m benchmarks.buckets [--steps 15]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks import machine

NUM_RANKS, NUM_LAYERS, ROWS = 2, 8, 64
SIZES = (1_000_000, 10_000_000, 30_000_000)
WAYS = ("flat", "buckets", "parts")
BUCKET = 1_000_000
"""Numbers in a bucket, 4 MB: near DDP's first ones."""


class Reducer:
    """The gradients of `model` in one buffer, in the order in which backward makes them."""

    def __init__(self, model: nn.Module, group: Any) -> None:
        self._group = group
        self._parameters = list(model.parameters())[::-1]
        self.flat = torch.zeros(sum(p.numel() for p in self._parameters))
        self._views = [part.view(p.shape) for part, p in zip(self._parts(), self._parameters, strict=True)]
        self._ends = torch.tensor([p.numel() for p in self._parameters]).cumsum(0).tolist()
        self._way = "flat"
        for index, parameter in enumerate(self._parameters):
            parameter.register_post_accumulate_grad_hook(lambda p, index=index: self._made(index, p))  # type: ignore[misc]

    def _parts(self) -> list[Tensor]:
        return list(self.flat.split([p.numel() for p in self._parameters]))

    def begin(self, way: str) -> None:
        self._way, self._sent, self._works = way, 0, []
        for parameter in self._parameters:
            parameter.grad = None

    def _made(self, index: int, parameter: Tensor) -> None:
        if self._way == "buckets" and parameter.grad is not None:
            self._views[index].copy_(parameter.grad)
            if self._ends[index] - self._sent >= BUCKET or index + 1 == len(self._parameters):
                self._works.append(self._group.allreduce([self.flat[self._sent : self._ends[index]]]))
                self._sent = self._ends[index]

    def end(self) -> None:
        if self._way != "buckets":
            torch._foreach_copy_(self._views, [p.grad for p in self._parameters if p.grad is not None])
            parts = self.flat.split(BUCKET) if self._way == "parts" else [self.flat]
            self._works = [self._group.allreduce([part]) for part in parts]
        for work in self._works:
            work.wait()


def _rank(rank: int, store: str, size: int, steps: int, out: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=NUM_RANKS)
    width = int((size / NUM_LAYERS) ** 0.5)
    torch.manual_seed(0)
    model = nn.Sequential(*(layer for _ in range(NUM_LAYERS) for layer in (nn.Linear(width, width), nn.ReLU())))
    reducer = Reducer(model, dist.distributed_c10d._get_default_group())
    x = torch.randn(ROWS, width)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    sums: dict[str, float] = {}
    for number in range(len(WAYS) * (steps + 2)):
        way = WAYS[number % len(WAYS)]
        dist.barrier()
        began_s = time.perf_counter()
        reducer.begin(way)
        model(x).square().mean().backward()
        reducer.end()
        seconds[way].append(time.perf_counter() - began_s)
        sums[way] = float(reducer.flat.sum())
    if max(sums.values()) - min(sums.values()) > 1e-4 * abs(sums["flat"]) + 1e-12:
        raise SystemExit(f"both ways give different gradients: {sums}")
    if rank == 0:
        out.put({way: median(seconds[way][2:]) * 1e3 for way in WAYS})
    dist.barrier()
    dist.destroy_process_group()


def _measure(size: int, steps: int) -> dict[str, float]:
    context = torch.multiprocessing.get_context("spawn")
    out = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        ranks = [context.Process(target=_rank, args=(rank, store, size, steps, out)) for rank in range(NUM_RANKS)]
        for process in ranks:
            process.start()
        found: dict[str, float] = out.get(timeout=600)
        for process in ranks:
            process.join()
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.buckets")
    parser.add_argument("--steps", type=int, default=15)
    args = parser.parse_args()
    print(machine.describe())
    for size in SIZES:
        found = _measure(size, args.steps)
        times = ", ".join(f"{way} {step_ms:.1f} ms ({step_ms / found['flat']:.3f})" for way, step_ms in found.items())
        print(f"{size:>12,} parameters: {times}")


if __name__ == "__main__":
    main()
