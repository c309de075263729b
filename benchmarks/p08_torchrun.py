"""P8's peer: a DDP loop on a kafka-python consumer a rank, a snapshot every 50 steps. Two variants of what becomes of the offsets.

auto-commit: the consumer commits by itself every five seconds, and a restarted rank goes on from what was committed.
careful: offsets are in the snapshot, and a restarted rank seeks to those.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist
from kafka import KafkaConsumer, TopicPartition
from torch.nn.parallel import DistributedDataParallel

from benchmarks.p06_loop import Trace
from benchmarks.p08_audit import audited

SAVE_EVERY = 50


def main() -> None:
    """One rank, which reads the partition of its number; ends behind a snapshot once a file `stop` is there."""
    args = _arguments()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    model, file = audited(args.num_ids), args.folder / "snapshot.pt"
    saved: dict[str, Any] = (
        torch.load(file) if file.exists() else {"step": 0, "model": model.state_dict(), "offsets": [0] * world_size}
    )
    model.load_state_dict(saved["model"])
    step, offset = saved["step"], saved["offsets"][rank]
    consumer = _consumer(args, rank=rank, offset=offset)
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer, trace = torch.optim.SGD(parallel.parameters(), lr=1.0), Trace(args.folder, rank=rank)
    while True:
        records = [record for found in consumer.poll(timeout_ms=50, max_records=1).values() for record in found]
        ids = [torch.from_numpy(pa.ipc.open_stream(record.value).read_all()["id"].to_numpy()) for record in records]
        optimizer.zero_grad()
        (parallel(torch.cat([torch.empty(0, dtype=torch.int64), *ids])).sum() * world_size).backward()  # DDP takes the mean
        optimizer.step()
        step, offset = step + 1, records[-1].offset + 1 if records else offset
        trace.applied(step)
        if step % SAVE_EVERY == 0 and _save(args, model=model, step=step, offset=offset):
            consumer.close()
            return


def _arguments() -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--bootstrap")
    parser.add_argument("--topic")
    parser.add_argument("--num-ids", type=int)
    parser.add_argument("--is-careful", action="store_true")
    return parser.parse_args()


def _consumer(args: Any, *, rank: int, offset: int) -> KafkaConsumer:
    """Assigned by hand: a group would wait for the dead member's session to end."""
    consumer = KafkaConsumer(
        bootstrap_servers=args.bootstrap,
        group_id=f"group-{args.topic}-{args.is_careful}",
        enable_auto_commit=not args.is_careful,
        auto_offset_reset="earliest",
    )
    partition = TopicPartition(args.topic, rank)
    consumer.assign([partition])
    if args.is_careful:
        consumer.seek(partition, offset)
    return consumer


def _save(args: Any, *, model: torch.nn.Module, step: int, offset: int) -> bool:
    """All ranks' offsets and the weights of one step are in one file; whether it is the last one."""
    mine = torch.tensor([offset, (args.folder / "stop").exists()])
    everybody = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, mine)
    if dist.get_rank() == 0:
        scratch = args.folder / "snapshot.partial"
        torch.save({"step": step, "model": model.state_dict(), "offsets": [int(one[0]) for one in everybody]}, scratch)
        scratch.replace(args.folder / "snapshot.pt")
    return any(bool(one[1]) for one in everybody)


if __name__ == "__main__":
    main()
