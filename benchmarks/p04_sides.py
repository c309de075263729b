"""P4's and P5's sides, each a process of its own: a partition's messages to tensors, from its beginning to its end.

dtrain's is what a reader and a trainer do with a block: `Feed.poll`, then one copy into private arrays. The loops are what one writes by hand, with the settings
that their documentations recommend for throughput.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.p01_workload import NUM_FEATURES, PerceptronTask
from dtrain.data.block import RawRecord

Batches = Iterator[dict[str, Tensor]]
DROPPED = 5
"""One part in so many of the rows is warm-up."""


def main() -> None:
    """Print rows a second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--bootstrap")
    parser.add_argument("--topic")
    parser.add_argument("--partition", type=int, default=0)
    parser.add_argument("--format", choices=("arrow", "raw", "json"))
    parser.add_argument("--rows", type=int, help="of the partition")
    args = parser.parse_args()
    torch.set_num_threads(1)
    num_rows, began_at, began_s, cpu_s = 0, 0, 0.0, 0.0
    for batch in SIDES[args.side](args):
        num_rows += len(batch["y"])
        if not began_s and num_rows >= args.rows // DROPPED:
            began_at, began_s, cpu_s = num_rows, time.perf_counter(), time.process_time()
    if num_rows != args.rows:
        raise SystemExit(f"{num_rows} rows came, not {args.rows}")
    measured_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    print(json.dumps({"rows_a_s": (num_rows - began_at) / measured_s, "cpu_share": cpu_s / measured_s}))


def by_dtrain(args: Any, engine: str) -> Batches:
    """A source, its blocks, and the copy that a trainer makes."""
    from dtrain.data.staging import Staging
    from dtrain.spec.job import JobSpec
    from dtrain.steplog.positions import Partition
    from dtrain.stream.sources import collect_seldom, open_source

    collect_seldom()

    formats = {"raw": {"type": "raw", "decoder": "benchmarks.p04_sides:decode_rows"}}
    fields = {"topic": args.topic, "bootstrap": args.bootstrap, "engine": engine, "start": "earliest", "end": "latest"}
    source_spec = fields | {"format": formats.get(args.format, args.format)}
    task = {"name": "p4", "task": "benchmarks.p01_workload:PerceptronTask", "checkpoint": {"to": "/nowhere"}}
    spec = JobSpec.model_validate({**task, "source": source_spec})
    schema, here = PerceptronTask.features, Partition(args.topic, args.partition)
    staging = Staging(schema, 1)
    with closing(open_source(spec)) as source:
        starts, ends = source.resolve_start(), source.resolve_end()
        assert ends is not None
        at = starts[here]
        with closing(source.follow({here: at}, schema=schema, ends={here: ends[here]})) as feed:
            while at < ends[here]:
                for block in feed.poll(max_wait_s=0.1):
                    at = block.meta.end
                    arrays = staging.fill([(block.batch, 0, block.batch.num_rows)])
                    yield {name: torch.from_numpy(array) for name, array in arrays.items()}


def decode_rows(records: Sequence[RawRecord]) -> pa.RecordBatch:
    """A row of each record, as a user of dtrain decodes them."""
    rows = np.frombuffer(b"".join([record.value or b"" for record in records]), np.float32).reshape(-1, NUM_FEATURES + 1)
    x = pa.FixedSizeListArray.from_arrays(pa.array(rows[:, :-1].reshape(-1)), NUM_FEATURES)
    return pa.record_batch({"x": x, "y": pa.array(rows[:, -1].copy())})


def by_kafka_python(args: Any) -> Batches:
    """kafka-python's consumer, polled by many."""
    from kafka import KafkaConsumer, TopicPartition

    options = {"enable_auto_commit": False, "fetch_max_wait_ms": 50, "max_partition_fetch_bytes": 8 << 20}
    consumer = KafkaConsumer(bootstrap_servers=args.bootstrap, **options, max_poll_records=2000)
    place = TopicPartition(args.topic, args.partition)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end = consumer.end_offsets([place])[place]
    while consumer.position(place) < end:
        if values := [record.value for records in consumer.poll(timeout_ms=100).values() for record in records]:
            yield from _LOOPS[args.format](values)


def by_librdkafka(args: Any) -> Batches:
    """confluent-kafka's consumer, asked for many at a time."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

    options = {"group.id": "p4", "enable.auto.commit": False, "enable.partition.eof": True, "fetch.wait.max.ms": 50}
    # Its own defaults stop fetching for a second once 64 MiB wait to be consumed.
    queue = {"fetch.message.max.bytes": 8 << 20, "queued.max.messages.kbytes": 256 << 10, "fetch.queue.backoff.ms": 5}
    consumer = Consumer({"bootstrap.servers": args.bootstrap} | queue | options)
    consumer.assign([TopicPartition(args.topic, args.partition, OFFSET_BEGINNING)])
    is_done = False
    while not is_done:
        values = []
        for message in consumer.consume(2000 if args.format != "arrow" else 200, 0.05):
            if (error := message.error()) is None:
                values.append(message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                is_done = True
            else:
                raise SystemExit(str(error))
        if values:
            yield from _LOOPS[args.format](values)
    consumer.close()


def _arrow(values: list[bytes]) -> Batches:
    for value in values:
        table = pa.ipc.open_stream(value).read_all().combine_chunks()
        x = table["x"].combine_chunks().flatten().to_numpy().reshape(-1, NUM_FEATURES)
        yield {"x": torch.from_numpy(x.copy()), "y": torch.from_numpy(table["y"].to_numpy().copy())}


def _raw(values: list[bytes]) -> Batches:
    rows = np.frombuffer(b"".join(values), np.float32).reshape(-1, NUM_FEATURES + 1)
    yield {"x": torch.from_numpy(rows[:, :-1].copy()), "y": torch.from_numpy(rows[:, -1].copy())}


def _json(values: list[bytes]) -> Batches:
    rows = [json.loads(value) for value in values]
    x = np.array([row["x"] for row in rows], dtype=np.float32)
    yield {"x": torch.from_numpy(x), "y": torch.from_numpy(np.array([row["y"] for row in rows], dtype=np.float32))}


_LOOPS: dict[str, Callable[[list[bytes]], Batches]] = {"arrow": _arrow, "raw": _raw, "json": _json}
SIDES: dict[str, Callable[[Any], Batches]] = {
    "dtrain-kafka-python": lambda args: by_dtrain(args, "kafka-python"),
    "dtrain-librdkafka": lambda args: by_dtrain(args, "librdkafka"),
    "kafka-python": by_kafka_python,
    "librdkafka": by_librdkafka,
}


if __name__ == "__main__":
    main()
