"""P6's peer torchft: each rank is a replica group of one, as its documentation runs it on one machine."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from p06_loop import Trace, arguments, batches, build, loss_of


def main() -> None:
    """One replica; never ends by itself. The lighthouse's address is in TORCHFT_LIGHTHOUSE."""
    from torchft import DistributedDataParallel, Manager, Optimizer, ProcessGroupGloo

    args = arguments()
    model, inner = build()
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "RANK": "0", "WORLD_SIZE": "1"}

    def load(state: dict[str, Any]) -> None:
        model.load_state_dict(state["model"])
        inner.load_state_dict(state["optimizer"])

    patience = timedelta(seconds=args.timeout_s or 60)
    tuned = {"heartbeat_interval": timedelta(milliseconds=50), "timeout": patience} if args.is_aggressive else {}
    manager = Manager(
        pg=ProcessGroupGloo(timeout=patience),
        load_state_dict=load,
        state_dict=lambda: {"model": model.state_dict(), "optimizer": inner.state_dict()},
        min_replica_size=1,
        replica_id=f"replica-{args.rank}",
        **tuned,
    )
    parallel, optimizer = DistributedDataParallel(manager, model), Optimizer(manager, inner)
    rows, trace = batches(world_size=args.world_size), Trace(args.folder, rank=args.rank)
    while True:
        before = manager.current_step()
        optimizer.zero_grad()
        loss_of(parallel, rows[before % len(rows)]).backward()
        optimizer.step()
        if manager.current_step() > before:  # else the step was given up: it is tried again
            trace.applied(manager.current_step())


if __name__ == "__main__":
    main()
