"""Messages of an example's topic, and a producer that sends them."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
from kafka import KafkaProducer


@dataclass(frozen=True, slots=True)
class Message:
    """A message, whose rows are the next `num_rows` of the example's table."""

    partition: int
    value: bytes
    num_rows: int = 1
    key: bytes | None = None


def arrow_messages(table: pa.Table, *, rows: int, num_partitions: int) -> Iterator[Message]:
    """The table as Arrow IPC streams of so many consecutive rows; partitions take turns."""
    for number, start in enumerate(range(0, table.num_rows, rows)):
        some = table.slice(start, rows).combine_chunks()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, some.schema) as writer:
            writer.write_table(some)
        yield Message(number % num_partitions, sink.getvalue().to_pybytes(), some.num_rows)


def of_rows(messages: Iterable[Message], *, start: int, stop: int) -> Iterator[Message]:
    """Those that begin with one of the rows [start, stop)."""
    at = 0
    for message in messages:
        if at >= stop:
            return
        if start <= at:
            yield message
        at += message.num_rows


def send(messages: Iterable[Message], *, bootstrap: str, topic: str, rate: float = 0) -> int:
    """The messages are in the topic, acknowledged by all replicas; how many rows that is.

    Args:
        messages: in their order.
        bootstrap: Kafka's address.
        topic: it exists, with as many partitions as the messages want.
        rate: rows a second; 0 for as fast as it goes.
    """
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    began_s, sent, pending = time.monotonic(), 0, []
    try:
        for message in messages:
            if rate:
                time.sleep(max(0.0, began_s + sent / rate - time.monotonic()))
            pending.append(producer.send(topic, message.value, key=message.key, partition=message.partition))
            sent += message.num_rows
        for future in pending:
            future.get(timeout=60)
    finally:
        producer.close(timeout=5)
    return sent


def command_line(messages: Iterable[Message], *, topic: str, rate: float) -> None:
    """`python -m examples.NAME.produce`: a live producer, by hand."""
    parser = argparse.ArgumentParser(description=f"Send the rows of the example {topic} to a topic, live.")
    parser.add_argument("--bootstrap", required=True, help="Kafka's address, host:port")
    parser.add_argument("--topic", default=topic, help="an existing topic")
    parser.add_argument("--rate", type=float, default=rate, help="rows a second")
    parser.add_argument("--messages", type=int, default=None, help="only so many messages")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sent = send(islice(messages, args.messages), bootstrap=args.bootstrap, topic=args.topic, rate=args.rate)
    print(f"{sent} rows sent to {args.topic}")
