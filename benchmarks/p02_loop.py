"""P2's peer: DDP on a hand-written kafka-python loop. Each rank reads a partition; a thread polls and decodes ahead of the steps."""

from __future__ import annotations

import argparse
import json
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from kafka import KafkaConsumer, TopicPartition
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from benchmarks.p01_workload import NUM_FEATURES, PerceptronTask
from benchmarks.p06_loop import Trace

AHEAD = 8
"""Batches that are ready before they are needed."""


def main() -> None:
    """One rank; ends with its partition."""
    args = _arguments()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    task, params = PerceptronTask(), {"hidden": args.hidden}
    model = DistributedDataParallel(task.model(params), gradient_as_bucket_view=True, static_graph=True)
    optimizer, trace = task.optimizer(model, params), Trace(args.folder, rank=rank)
    ready: queue.Queue[dict[str, Tensor] | None] = queue.Queue(maxsize=AHEAD)
    threading.Thread(target=_prefetch, args=(args, rank, args.rows // world_size, ready), daemon=True).start()
    step = 0
    while (batch := ready.get()) is not None:
        optimizer.zero_grad()
        task.loss(model(batch["x"]), batch).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        trace.applied(step)
    dist.destroy_process_group()


def _arguments() -> Any:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--bootstrap")
    parser.add_argument("--topic")
    parser.add_argument("--format", choices=("arrow", "json"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--hidden", type=lambda text: [int(part) for part in text.split(",")])
    return parser.parse_args()


def _prefetch(args: Any, partition: int, num_rows: int, ready: queue.Queue[dict[str, Tensor] | None]) -> None:
    """Batches of `num_rows` of the whole partition, then None."""
    parts: list[tuple[Any, Any]] = []
    held = 0
    for x, y in _decoded(args, partition):
        parts.append((x, y))
        held += len(y)
        if held < num_rows:
            continue
        xs, ys = (np.concatenate(column) for column in zip(*parts, strict=True))
        for first in range(0, held - num_rows + 1, num_rows):
            chosen = slice(first, first + num_rows)
            ready.put({"x": torch.from_numpy(xs[chosen]), "y": torch.from_numpy(ys[chosen])})
        left = held % num_rows
        parts, held = ([(xs[-left:], ys[-left:])] if left else []), left
    ready.put(None)


def _decoded(args: Any, partition: int) -> Iterator[tuple[Any, Any]]:
    """x [rows, NUM_FEATURES] and y [rows] of what each poll gives."""
    options = {"enable_auto_commit": False, "fetch_max_wait_ms": 50, "max_partition_fetch_bytes": 8 << 20}
    consumer = KafkaConsumer(bootstrap_servers=args.bootstrap, **options, max_poll_records=2000)
    place = TopicPartition(args.topic, partition)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end = consumer.end_offsets([place])[place]
    while consumer.position(place) < end:
        values = [record.value for records in consumer.poll(timeout_ms=100).values() for record in records]
        if args.format == "json":
            if values:
                rows = [json.loads(value) for value in values]
                yield (
                    np.array([row["x"] for row in rows], dtype=np.float32),
                    np.array([row["y"] for row in rows], dtype=np.float32),
                )
            continue
        for value in values:
            table = pa.ipc.open_stream(value).read_all().combine_chunks()
            x = table["x"].combine_chunks().flatten().to_numpy().reshape(-1, NUM_FEATURES)
            yield x, table["y"].to_numpy()


if __name__ == "__main__":
    main()
