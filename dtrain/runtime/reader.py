"""The reader: the actor that turns partitions into blocks. Imports no torch."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from dtrain import logs
from dtrain.clock import SystemClock
from dtrain.code.digest import check_code
from dtrain.data.decode import joined
from dtrain.data.schema import Schema
from dtrain.errors import DtrainError
from dtrain.policy.blocking import Size
from dtrain.runtime.delivery import NOTHING, Delivery, program_here, use_packages, with_code_here
from dtrain.runtime.gatherer import Gatherer
from dtrain.runtime.messages import Beginning, Following, ReadReport
from dtrain.spec.formats import RawFormat
from dtrain.spec.job import JobSpec
from dtrain.steplog.moves import Change
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import RowRange
from dtrain.stream.log import Identity
from dtrain.stream.source import Source
from dtrain.stream.sources import collect_seldom, open_source

_POLL_S = 0.1


class Reader:
    """One process that reads some partitions. Ray runs one call at a time, in the order in which they were made.

    Args:
        spec_json: the job's spec.
        log_file: where to log.
        delivery: of the job's code, none where that is a folder which all hosts can read, and the lock of its packages.
    """

    def __init__(self, spec_json: str, log_file: str, delivery: Delivery = NOTHING) -> None:
        logs.configure(file=Path(log_file))
        collect_seldom()
        self._log = logs.logger(role="reader", pid=os.getpid())
        self._spec = JobSpec.from_json(spec_json)
        self._delivery = delivery
        self._gatherer: Gatherer | None = None
        self._schema: Schema | None = None
        self._epoch = 0
        self._code_sha256 = ""
        self._told: Mapping[Partition, int] = {}  # ends, in this epoch

    @cached_property
    def _source(self) -> Source:
        """Made by the first call that needs it: what is wrong with it is that call's error, not a dead actor."""
        self._spec = with_code_here(self._spec, self._delivery)
        self._code_sha256 = program_here(self._spec, self._delivery)  # before any of it is imported
        if self._runs_code:
            use_packages(self._delivery, log=self._log)
        if self._spec.code:
            sys.path.insert(0, self._spec.code)  # for a decoder of the user's; nothing of it is imported here otherwise
        return open_source(self._spec)

    @property
    def _runs_code(self) -> bool:
        """Whether rows pass code of the user's."""
        return bool(self._spec.transform.map) or isinstance(self._spec.source.format, RawFormat)

    def pid(self) -> int:
        """This process."""
        return os.getpid()

    def begin(self) -> Beginning:
        """Find out which topic this is, and where the job starts and ends."""
        return Beginning(self._source.identify().to_json(), self._source.resolve_start(), self._source.resolve_end())

    def recall(self, identity: Mapping[str, Any]) -> None:
        """What was settled in checkpoint 0 holds, before anything is followed."""
        self._source.recall(Identity.from_json(identity))

    def follow(self, following: Following) -> None:
        """Read these partitions from there from now on; see `Source.follow` for what it raises.

        Raises:
            DriftError: this process has other code than the job.
        """
        source = self._source
        if self._runs_code:
            check_code(self._code_sha256, wanted=following.code_sha256, who="a reader")
        if self._gatherer is not None:
            self._gatherer.feed.close()
        self._gatherer = None
        self._epoch = following.epoch
        self._told = {}
        self._schema = schema = Schema(following.schema)
        feed = source.follow(
            following.positions,
            schema=schema,
            ends=following.ends,
            identity=Identity.from_json(following.identity),
            marks=following.marks,
        )
        self._gatherer = Gatherer(feed, SystemClock())
        self._log.info("follows", epoch=following.epoch, positions={str(p): tuple(v) for p, v in following.positions.items()})

    def gaps(self, following: Following) -> Change:
        """How the job gets past what is lost of its topics, see `Source.gaps`."""
        return self._source.gaps(
            following.positions,
            ends=following.ends,
            identity=Identity.from_json(following.identity),
            marks=following.marks,
        )

    def discover(self, following: Following) -> Change:
        """The partitions that have come since, see `Source.discover`."""
        return self._source.discover(following.positions, identity=Identity.from_json(following.identity))

    def next(self, epoch: int, size: Size, sated: Collection[Partition]) -> tuple[ReadReport, pa.RecordBatch | None]:
        """The next blocks: their descriptors, and their rows as one object that belongs to the caller and outlives this process.

        Args:
            epoch: of the `follow` that the caller means.
            size: of what is wanted.
            sated: partitions of which no more is wanted for now.
        """
        if epoch != self._epoch or self._gatherer is None or self._schema is None:
            return ReadReport(), None
        blocks = self._gatherer.gather(size, sated=sated, max_wait_s=_POLL_S)
        ends = self._gatherer.feed.end_offsets()
        changed = {partition: end for partition, end in ends.items() if self._told.get(partition) != end}
        self._told = ends
        batches = [block.batch for block in blocks if block.meta.num_batch_rows]
        rows = joined(batches, self._schema) if batches else None
        return ReadReport([block.meta for block in blocks], changed, time.process_time(), self._gatherer.feed.news()), rows

    def fetch(self, ranges: Sequence[RowRange], schema: Mapping[str, Any]) -> tuple[int, pa.RecordBatch]:
        """The rows of `ranges`, which were planned before, one range's after the other's, and how many bytes they are; see `Source.fetch`."""
        task_schema = Schema(schema)
        rows = joined(self._source.fetch(ranges, schema=task_schema), task_schema)
        self._log.info("fetched", ranges=len(ranges), rows=rows.num_rows)
        return rows.nbytes, rows

    def send_rejects(self, ranges: Sequence[RowRange], to_topic: str, job_id: str) -> None:
        """Write the rejected records of `ranges` to the dead-letter topic; they are there when this returns."""
        self._source.send_rejects(ranges, to_topic=to_topic, job_id=job_id)

    def commit(self, positions: Mapping[Partition, Position], group: str) -> None:
        """Tell Kafka's lag tools how far the job is; where that is not possible, the log tells."""
        try:
            self._source.commit(positions, group=group)
        except DtrainError as error:
            self._log.warning("positions are not given back", group=group, error=str(error))
