"""P11's stream: messages of P1's rows, paced, in a process of its own; when each was sent is left in a file."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from kafka import KafkaProducer

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
    producer = KafkaProducer(bootstrap_servers=args.bootstrap, acks=1, linger_ms=0, max_in_flight_requests_per_connection=1)
    producer.partitions_for(args.topic)
    sent_s = np.zeros(args.messages)
    began_s = time.monotonic()
    for number in range(args.messages):
        time.sleep(max(0.0, began_s + number / args.messages_a_s - time.monotonic()))
        sent_s[number] = time.monotonic()
        producer.send(args.topic, few[number % len(few)], partition=number % args.partitions)
    producer.flush(timeout=60)
    producer.close()
    np.save(args.out, sent_s)


if __name__ == "__main__":
    main()
