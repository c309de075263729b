"""A live producer: the flights to a topic, in the order of the schedule, at a steady pace.

python -m examples.flights.produce --bootstrap localhost:9092 --rate 5000
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator

import pyarrow as pa
from kafka import KafkaProducer

from examples.flights.data import flights

NUM_PARTITIONS = 4
MESSAGE_ROWS = 256


def messages(table: pa.Table) -> Iterator[tuple[int, int, bytes]]:
    """Each message's partition, number of rows and value: an Arrow IPC stream of consecutive rows.

    Partitions take turns, so that the order of the schedule is nearly kept whatever partition is read first.
    """
    for index, start in enumerate(range(0, table.num_rows, MESSAGE_ROWS)):
        rows = table.slice(start, MESSAGE_ROWS)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(rows.combine_chunks())
        yield index % NUM_PARTITIONS, rows.num_rows, sink.getvalue().to_pybytes()


def end_offsets(num_rows: int) -> dict[int, int]:
    """Where each partition of a fresh topic ends when `num_rows` rows are in it."""
    num_messages = -(-num_rows // MESSAGE_ROWS)
    return {p: (num_messages - p + NUM_PARTITIONS - 1) // NUM_PARTITIONS for p in range(NUM_PARTITIONS)}


def produce(table: pa.Table, *, bootstrap: str, topic: str, rate: float, report_s: float = 0.5) -> int:
    """Send `table` at `rate` rows a second and return the rows that the broker has acknowledged from all replicas.

    A line of JSON on standard output says how far it is, every `report_s` seconds and at the end.
    """
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    acked = [0]
    failures: list[BaseException] = []

    def acknowledge(rows: int) -> None:
        acked[0] += rows

    started, said, sent = time.monotonic(), 0.0, 0
    try:
        for partition, rows, value in messages(table):
            time.sleep(max(0.0, started + sent / rate - time.monotonic()))
            future = producer.send(topic, value, partition=partition)
            future.add_callback(lambda _, rows=rows: acknowledge(rows)).add_errback(failures.append)
            sent += rows
            if time.monotonic() - said > report_s:
                said = time.monotonic()
                _say(acked[0])
            if failures:
                raise failures[0]
        producer.flush(timeout=30)
    finally:
        producer.close(timeout=5)
    if failures:
        raise failures[0]
    _say(acked[0])
    return acked[0]


def _say(rows: int) -> None:
    print(json.dumps({"at_s": time.time(), "rows": rows}), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bootstrap", required=True, help="Kafka's address, host:port")
    parser.add_argument("--topic", default="flights", help=f"an existing topic of {NUM_PARTITIONS} partitions")
    parser.add_argument("--rate", type=float, default=5000, help="rows a second")
    parser.add_argument("--rows", type=int, default=None, help="only so many rows")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many of the first rows")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    produce(flights().slice(args.skip, args.rows), bootstrap=args.bootstrap, topic=args.topic, rate=args.rate)


if __name__ == "__main__":
    main()
