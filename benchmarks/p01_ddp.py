"""P1's peer: a DDP loop as its documentation recommends, with its rows in memory."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from benchmarks.p01_workload import NUM_BLOCKS, PerceptronTask, arguments, rows, timed
from dtrain.train.numerics import seed_of


def main() -> None:
    """One rank."""
    args = arguments()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.manual_seed(seed_of(0))  # the seed that dtrain derives from the job's
    task, params = PerceptronTask(), {"hidden": args.hidden}
    model = DistributedDataParallel(task.model(params), gradient_as_bucket_view=True, static_graph=True)
    optimizer = task.optimizer(model, params)
    share = slice(rank * args.rows // world_size, (rank + 1) * args.rows // world_size)
    batches = [{"x": torch.from_numpy(x[share].copy()), "y": torch.from_numpy(y[share].copy())} for x, y in rows(args.rows)]
    running = torch.zeros(())

    def step(number: int) -> None:
        batch = batches[number % NUM_BLOCKS]
        optimizer.zero_grad()
        loss = task.loss(model(batch["x"]), batch).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        running.add_(loss.detach())

    timed(step, args=args, model=model)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
