"""The reader: the actor that turns Kafka partitions into blocks. Imports no torch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from dtrain import logs
from dtrain.data.block import Block
from dtrain.data.schema import Schema
from dtrain.runtime.messages import Beginning, Following, ReadReport
from dtrain.spec.job import JobSpec
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import RowRange
from dtrain.stream.kafka import KafkaSource
from dtrain.stream.source import Feed, Identity, Mark, Source

_POLL_S = 0.1


class Reader:
    """One process that talks to Kafka. Ray runs one call at a time, in the order in which they were made.

    Args:
        spec_json: the job's spec.
        log_file: where to log.
    """

    def __init__(self, spec_json: str, log_file: str) -> None:
        logs.configure(file=Path(log_file))
        self._log = logs.logger(role="reader", pid=os.getpid())
        self._source: Source = KafkaSource(JobSpec.from_json(spec_json).source)
        self._feed: Feed | None = None
        self._schema: Schema | None = None
        self._epoch = 0
        self._ready: deque[Block] = deque()

    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def begin(self) -> Beginning:
        """Find out which topic this is, and where the job starts and ends."""
        return Beginning(self._source.identify().to_json(), self._source.resolve_start(), self._source.resolve_end())

    def follow(self, following: Following) -> None:
        """Read from there from now on; see `Source.follow` for what it raises."""
        if self._feed is not None:
            self._feed.close()
        self._ready.clear()
        self._epoch = following.epoch
        self._feed = None
        self._feed = self._source.follow(
            following.positions,
            schema=Schema(following.schema),
            ends=following.ends,
            identity=Identity.from_json(following.identity),
            marks={partition: Mark(*mark) for partition, mark in following.marks.items()},
        )
        self._log.info("follows", epoch=following.epoch, positions={str(p): tuple(v) for p, v in following.positions.items()})

    def next(self, epoch: int, sated: Collection[Partition]) -> tuple[ReadReport, pa.RecordBatch | None]:
        """The next block: its descriptor, and its rows as an object that belongs to the caller and outlives this process.

        Args:
            epoch: of the `follow` that the caller means.
            sated: partitions of which no more is wanted for now.
        """
        if epoch != self._epoch or self._feed is None:
            return ReadReport(self._epoch, None, {}), None
        self._feed.hold(sated)
        block = self._pop(sated)
        if block is None:
            self._ready.extend(self._feed.poll(max_wait_s=_POLL_S))
            block = self._pop(sated)
        ends = dict(self._feed.end_offsets())
        if block is None:
            return ReadReport(epoch, None, ends), None
        return ReadReport(epoch, block.meta, ends), block.batch if block.meta.num_rows else None

    def _pop(self, sated: Collection[Partition]) -> Block | None:
        """The first block that is ready and wanted."""
        for index, block in enumerate(self._ready):
            if block.meta.partition not in sated:
                del self._ready[index]
                return block
        return None

    def send_rejects(self, ranges: Sequence[RowRange], to_topic: str, job_id: str) -> int:
        """Write the rejected records of `ranges` to the dead-letter topic; they are there when this returns."""
        return self._source.send_rejects(ranges, to_topic=to_topic, job_id=job_id)

    def commit(self, positions: Mapping[Partition, Position], group: str) -> None:
        """Tell Kafka's lag tools how far the job is."""
        self._source.commit(positions, group=group)
