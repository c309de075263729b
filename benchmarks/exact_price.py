"""What `exact` costs a step: dtrain against itself in `fast`, by number of slices.

One rank in one process, P1's model and rows, staged from Arrow blocks in memory; the process's own CPU time, so that a busy machine does not show.
Not in here: `exact` sums one flat buffer for each slice, so its collective carries `num_slices` times as many bytes.

    python -m benchmarks.exact_price [--pairs 5]
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from benchmarks import machine
from benchmarks.measure import alternate
from benchmarks.p01_dtrain import PARTITION, _block, _plan, _spec
from benchmarks.p01_workload import NUM_BLOCKS, PerceptronTask, rows
from dtrain.spec.job import JobSpec
from dtrain.steplog.positions import Position
from dtrain.steplog.progress import Progress
from dtrain.train.collective import InlineCollective
from dtrain.train.replica import Replica
from dtrain.train.stager import Stager

SIZES = (([128, 128], 512, 300), ([1024, 1024], 1024, 15))
"""Hidden widths, rows of a step, steps."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exact_price")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(machine.describe())
    for hidden, num_rows, steps in SIZES:
        for num_slices in (2, 8):
            exact, fast = (_job(hidden, num_rows, num_slices, numerics) for numerics in ("exact", "fast"))
            pairs = alternate(lambda: _step_ms(exact, steps), lambda: _step_ms(fast, steps), pairs=args.pairs)  # noqa: B023
            print(
                f"hidden {hidden}, {num_rows} rows, {num_slices} slices: exact {median(pairs.dtrain):.3f} ms, "
                f"fast {median(pairs.peer):.3f} ms, ratio {median(pairs.ratios):.2f}"
            )


def _job(hidden: list[int], num_rows: int, num_slices: int, numerics: str) -> JobSpec:
    job = _spec(hidden, rows=num_rows)
    batch = job.batch.model_copy(update={"num_slices": num_slices})
    return job.model_copy(update={"batch": batch, "train": job.train.model_copy(update={"numerics": numerics})})


def _step_ms(job: JobSpec, steps: int) -> float:
    """CPU milliseconds a step, after a fifth as many to warm up."""
    task, num_slices, num_rows = PerceptronTask(), job.batch.num_slices, job.batch.rows
    replica = Replica(task, job, device=torch.device("cpu"))
    replica.stand_at(Progress(positions={PARTITION: Position(0)}))
    replica.join(InlineCollective())
    stager = Stager(
        task.features, num_slices=num_slices, is_exact=replica.is_exact, slices=range(num_slices), device=replica.device
    )
    blocks = {number: _block(x, y) for number, (x, y) in enumerate(rows(num_rows))}
    began_s = 0.0
    for number in range(steps // 5 + steps):
        if number == steps // 5:
            began_s = time.process_time()
        batches = stager.stage([(number % NUM_BLOCKS, 0, num_rows)], blocks, num_rows=num_rows)
        replica.step(_plan(number, num_rows=num_rows), batches)
    return (time.process_time() - began_s) / steps * 1000


if __name__ == "__main__":
    main()
