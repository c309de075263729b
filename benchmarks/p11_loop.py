"""P11's peer: one process with a hand-written kafka-python and torch loop that saves model and offsets every so often.

It leaves, for every step and for every save, when it was done and which offsets of each partition are in it: `steps` and `saves`.
"""

from __future__ import annotations

import argparse
import os
import struct
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from kafka import KafkaConsumer, TopicPartition

from benchmarks.p01_workload import NUM_FEATURES, Numbers, PerceptronTask


def main() -> None:
    """Until `stop` is in the folder, or with `--end` until the topic's end."""
    args = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task, params = PerceptronTask(), {"hidden": args.hidden}
    model = task.model(params)
    optimizer = task.optimizer(model, params)
    partitions = [TopicPartition(args.topic, number) for number in range(args.partitions)]
    options = {"enable_auto_commit": False, "fetch_max_wait_ms": 50, "max_partition_fetch_bytes": 8 << 20}
    consumer = KafkaConsumer(bootstrap_servers=args.bootstrap, **options, max_poll_records=2000)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    steps, saves = (_Log(args.folder / name, num_offsets=len(partitions)) for name in ("steps", "saves"))
    offsets, waiting, since_s, saved_s = [0] * len(partitions), list[tuple[Numbers, Numbers]](), 0.0, time.monotonic()
    ends = consumer.end_offsets(partitions) if args.end else {}
    while not (args.folder / "stop").exists() and (not ends or any(consumer.position(p) < ends[p] for p in partitions)):
        for partition, records in consumer.poll(timeout_ms=int(args.max_wait_s * 500)).items():
            since_s = since_s if waiting else time.monotonic()
            for record in records:
                table = pa.ipc.open_stream(record.value).read_all().combine_chunks()
                x = table["x"].combine_chunks().flatten().to_numpy().reshape(-1, NUM_FEATURES)
                waiting.append((x, table["y"].to_numpy()))
            offsets[partition.partition] = records[-1].offset + 1
        num_rows = sum(len(y) for _, y in waiting)
        if waiting and (num_rows >= args.rows or time.monotonic() - since_s >= args.max_wait_s):
            xs, ys = (np.concatenate(column) for column in zip(*waiting, strict=True))
            waiting = []
            for first in range(0, len(ys), args.rows):
                batch = {
                    "x": torch.from_numpy(xs[first : first + args.rows]),
                    "y": torch.from_numpy(ys[first : first + args.rows]),
                }
                optimizer.zero_grad()
                task.loss(model(batch["x"]), batch).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            steps.add(offsets)
        if time.monotonic() - saved_s >= args.save_every_s and not waiting:
            saved_s = time.monotonic()
            with (args.folder / "partial.pt").open("wb") as file:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "offsets": offsets}, file)
                file.flush()
                os.fsync(file.fileno())
            (args.folder / "partial.pt").replace(args.folder / "model.pt")
            saves.add(offsets)


class _Log:
    """Records of a moment and offsets, each in the file as soon as it is added."""

    def __init__(self, file: Path, *, num_offsets: int) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._record = struct.Struct(f"<d{num_offsets}q")

    def add(self, offsets: list[int]) -> None:
        os.write(self._file, self._record.pack(time.monotonic(), *offsets))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--bootstrap")
    parser.add_argument("--topic")
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--max-wait-s", type=float)
    parser.add_argument("--save-every-s", type=float)
    parser.add_argument("--end", action="store_true")
    parser.add_argument("--hidden", type=lambda text: [int(part) for part in text.split(",")])
    return parser.parse_args()


if __name__ == "__main__":
    main()
