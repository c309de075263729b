"""P10: what the step log costs a step: dtrain against itself without log, positions and digests.

One rank in one process, so that no collective hides anything; P1's model and rows, staged from Arrow blocks in memory. Off means: no entry is kept, no running
hash is taken, positions, marks and counts of rows do not move. On in both: staging, forward, scores, flat buffer, optimizer. The checksum of
each record that a reader takes is another process's work, and not in here. The clock is the process's own CPU time: nothing here waits, and a busy machine
does not show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from benchmarks.measure import Figure, alternate
from benchmarks.p01_dtrain import PARTITION, _block, _plan, _spec
from benchmarks.p01_workload import NUM_BLOCKS, PerceptronTask, rows
from dtrain.steplog.entries import Plan
from dtrain.steplog.positions import Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.tail import LogTail
from dtrain.train.collective import InlineCollective
from dtrain.train.replica import Replica
from dtrain.train.stager import Stager


@dataclass(frozen=True, slots=True)
class Size:
    """A model and a step: `hidden` widths, `rows` in a step, how many `steps` are timed after a tenth as many."""

    figure: str
    hidden: list[int]
    rows: int
    steps: int


SIZES = (
    Size("rows_a_s_small", hidden=[128, 128], rows=512, steps=1000),
    Size("rows_a_s_large", hidden=[1024, 1024], rows=1024, steps=60),
)


class NoProgress(Progress):
    """Counts steps, which seed a step's randomness, and nothing else."""

    def apply(self, entry: Plan) -> NoProgress:
        """One step more."""
        return replace(self, plan_number=entry.number, step=self.step + 1)


class NoTail(LogTail):
    """Keeps nothing."""

    def append(self, entry: Plan, log_hash: str) -> None:
        """The entry is forgotten."""


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure every size."""
    torch.set_num_threads(1)
    for size in SIZES:
        print(f" {size.figure}: hidden {size.hidden}, {size.rows} rows a step")
        measured = alternate(lambda: _rows_a_s(size, is_on=True), lambda: _rows_a_s(size, is_on=False), pairs=pairs)  # noqa: B023
        yield Figure.of(measured, id="P10", figure=size.figure, peer_name="dtrain without", goal=0.98, is_more_better=True)


def _rows_a_s(size: Size, *, is_on: bool) -> float:
    step = _stepper(size, is_on=is_on)
    for number in range(size.steps // 10):
        step(number)
    began_s = time.process_time()
    for number in range(size.steps // 10, size.steps // 10 + size.steps):
        step(number)
    return size.rows * size.steps / (time.process_time() - began_s)


def _stepper(size: Size, *, is_on: bool) -> Callable[[int], None]:
    task, spec = PerceptronTask(), _spec(size.hidden, rows=size.rows)
    replica = Replica(task, spec, device=torch.device("cpu"))
    replica.stand_at(Progress(positions={PARTITION: Position(0)}))
    if not is_on:
        replica.progress, replica.tail = NoProgress(), NoTail()
    replica.join(InlineCollective())
    num_slices = spec.batch.num_slices
    stager = Stager(task.features, num_slices=num_slices, is_exact=False, slices=range(num_slices), device=replica.device)
    blocks = {number: _block(x, y) for number, (x, y) in enumerate(rows(size.rows))}

    def step(number: int) -> None:
        batches = stager.stage([(number % NUM_BLOCKS, 0, size.rows)], blocks, num_rows=size.rows)
        replica.step(_plan(number, num_rows=size.rows), batches)

    return step
