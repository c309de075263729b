"""P11's stream: messages of P1's rows, paced, in a process of its own; when each was sent is left in a file.

By librdkafka: producers are on other machines as a rule, and kafka-python's takes two thirds of a core for a thousand messages a second.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer

from benchmarks.p01_workload import NUM_FEATURES, rows
from benchmarks.world import message


def main() -> None:
    """One message after the other, to the partitions in turn; then their times, on the monotonic clock in seconds, in `--out`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap")
    parser.add_argument("--topic")
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--rows-a-message", type=int)
    parser.add_argument("--messages", type=int)
    parser.add_argument("--messages-a-s", type=float)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    few = [
        message({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), NUM_FEATURES), "y": y})
        for x, y in rows(args.rows_a_message)
    ]
    producer = Producer({"bootstrap.servers": args.bootstrap, "acks": 1, "linger.ms": 0, "max.in.flight": 1})
    producer.list_topics(args.topic, timeout=30)
    sent_s = np.zeros(args.messages)
    began_s = time.monotonic()
    for number in range(args.messages):
        time.sleep(max(0.0, began_s + number / args.messages_a_s - time.monotonic()))
        sent_s[number] = time.monotonic()
        producer.produce(args.topic, few[number % len(few)], partition=number % args.partitions)
        producer.poll(0)
    if producer.flush(60):
        raise SystemExit("not all of it has come to the broker")
    np.save(args.out, sent_s)


if __name__ == "__main__":
    main()
