"""P6's peer nvidia-resiliency-ext: in-process restart. Weights stay in the processes; each restart takes those of its rank 0."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))
from p06_loop import Trace, arguments, batches, build, loss_of


def main() -> None:
    """One rank; never ends by itself. RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set; a store listens there already."""
    from nvidia_resiliency_ext import inprocess

    args = arguments()
    model, optimizer = build()
    trace, progress = Trace(args.folder, rank=args.rank), torch.zeros(1, dtype=torch.int64)

    def train(call_wrapper: inprocess.CallWrapper | None = None) -> None:
        assert call_wrapper is not None
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        server = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        store = dist.PrefixStore(f"group-{call_wrapper.iteration}", server)
        patience = timedelta(seconds=args.timeout_s or 1800)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=patience)
        parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)  # takes rank 0's weights
        _share(optimizer, progress)
        rows = batches(world_size=world_size)
        while True:
            with call_wrapper.atomic():  # weights move as a whole or not at all
                optimizer.zero_grad()
            loss_of(parallel, rows[int(progress) % len(rows)]).backward()
            with call_wrapper.atomic():
                optimizer.step()
                progress.add_(1)
            trace.applied(int(progress))
            call_wrapper.ping()

    train.__annotations__["call_wrapper"] = inprocess.CallWrapper  # which the wrapper looks for; not as a text
    settings = _settings(patience_s=args.timeout_s or 5.0) if args.is_aggressive else {}
    inprocess.Wrapper(**settings)(train)()


def _share(optimizer: torch.optim.Optimizer, progress: torch.Tensor) -> None:
    """Every rank has rank 0's moments and step."""
    dist.broadcast(progress, src=0)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for _, value in sorted(optimizer.state.get(parameter, {}).items()):
                dist.broadcast(value, src=0)


def _settings(*, patience_s: float) -> dict[str, Any]:
    """As short as they may be; `patience_s` for a step that makes no progress, and as long again until its process is ended."""
    return {
        "monitor_thread_interval": timedelta(milliseconds=10),
        "monitor_process_interval": timedelta(milliseconds=10),
        "heartbeat_interval": timedelta(milliseconds=50),
        "heartbeat_timeout": timedelta(seconds=patience_s),
        "progress_watchdog_interval": timedelta(milliseconds=50),
        "soft_timeout": timedelta(seconds=patience_s),
        "hard_timeout": timedelta(seconds=2 * patience_s),
        "last_call_wait": timedelta(milliseconds=50),
        "termination_grace_time": timedelta(milliseconds=100),
    }


if __name__ == "__main__":
    main()
