"""The count of rows, made without a line of dtrain: from the step log's files and from the topic.

A checkpoint's manifest (JSON) names the segments of the step log (JSON lines). Each line is a step with the row ranges that it
trained: `[partition, first offset, first row, end offset, end row, …]`. The topic is read again by a plain consumer, and every
row that a range names is counted by the number that the producer gave it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from kafka import KafkaConsumer, TopicPartition

Rows = npt.NDArray[np.int64]
Topic = Mapping[str, Mapping[int, Rows]]
"""`topic:partition` → offset → the numbers of the rows in that message."""


@dataclass(frozen=True, slots=True)
class Count:
    """Rows of the topic, rows that the log names (each as often as it does), rows never named, rows named more than once."""

    in_topic: int
    trained: int
    lost: int
    doubled: int


def count(topic: Topic, ranges: Iterable[list[Any]]) -> Count:
    """Compare the rows of `topic` with the row ranges of a step log."""
    rows = np.concatenate([numbers for offsets in topic.values() for numbers in offsets.values()])
    times = np.zeros(rows.max() + 1, dtype=np.int64)
    for partition, first_offset, first_row, end_offset, end_row, *_, rejects in ranges:
        rejected = {(offset, row) for offset, row, _ in rejects}
        for offset in range(first_offset, end_offset + 1):
            numbers = topic[partition].get(offset, np.empty(0, dtype=np.int64))
            start = first_row if offset == first_offset else 0
            stop = end_row if offset == end_offset else len(numbers)
            for row in range(start, stop) if rejected else ():
                times[numbers[row]] -= (offset, row) in rejected
            np.add.at(times, numbers[start:stop], 1)
    sent = times[np.unique(rows)]
    return Count(len(sent), int(times.sum()), int((sent == 0).sum()), int((sent > 1).sum()))


def ranges_of(manifest: Path) -> Iterator[list[Any]]:
    """The row ranges of every step from the job's beginning to this checkpoint; each file is checked against its digest."""
    progress = json.loads(manifest.read_text(encoding="utf-8"))["progress"]
    for segment in progress["segments"]:
        content = (manifest.parent.parent / "segments" / f"{segment['sha256']}.jsonl").read_bytes()
        if hashlib.sha256(content).hexdigest() != segment["sha256"]:
            raise SystemExit(f"log segment {segment['sha256'][:12]} does not match its digest")
        for line in content.splitlines():
            yield from json.loads(line)["ranges"]


def read_topic(topic: str, *, bootstrap: str) -> Topic:
    """Every row number in `topic`, from its beginning to where it ends now."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, group_id=None)
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found: dict[str, dict[int, Rows]] = {f"{p.topic}:{p.partition}": {} for p in partitions}
        while any(consumer.position(p) < ends[p] for p in partitions):
            for partition, records in consumer.poll(timeout_ms=500).items():
                for record in records:
                    table = pa.ipc.open_stream(record.value).read_all()
                    found[f"{partition.topic}:{partition.partition}"][record.offset] = table["row"].to_numpy()
        return found
    finally:
        consumer.close(autocommit=False)
