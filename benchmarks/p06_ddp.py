"""P6's peer `torchrun --max-restarts`, and plain DDP: a loop that goes on from its last snapshot, taken every 50 steps."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))
from p06_loop import Trace, arguments, batches, build, loss_of, save

SAVE_EVERY = 50


def main() -> None:
    """One rank; never ends by itself."""
    args = arguments()
    dist.init_process_group("gloo", timeout=timedelta(seconds=args.timeout_s or 1800))
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    model, optimizer = build()
    file, step = args.folder / "snapshot.pt", 0
    if file.exists():
        saved = torch.load(file)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True)
    rows, trace = batches(world_size=world_size), Trace(args.folder, rank=rank)
    while True:
        optimizer.zero_grad()
        loss_of(parallel, rows[step % len(rows)]).backward()
        optimizer.step()
        step += 1
        trace.applied(step)
        if rank == 0 and step % SAVE_EVERY == 0:
            save(file, step=step, model=model, optimizer=optimizer)


if __name__ == "__main__":
    main()
