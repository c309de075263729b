"""A whole job in one process: the same job file, the same log and checkpoints, without Ray and without gRPC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.clock import Clock, SystemClock
from dtrain.data.schema import Schema
from dtrain.errors import DtrainError, StorageError, UnavailableError
from dtrain.job.status import Happening, JobStatus, Observation, Outcome
from dtrain.policy.cadence import CheckpointCadence
from dtrain.policy.cutting import Cut
from dtrain.policy.rejects import check_rejects
from dtrain.policy.verdict import verdict_of
from dtrain.rank import Rank
from dtrain.runtime.ledger import Ledger, Origin
from dtrain.runtime.planner import new_cutter
from dtrain.runtime.tracker import Tracker
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.stream.kafka import KafkaSource
from dtrain.stream.source import Feed, Identity, Mark, Source
from dtrain.train.collective import InlineCollective

_POLL_S = 0.05
_STATUS_EVERY_S = 0.25
OnStatus = Callable[[JobStatus, Sequence[Happening]], None]


def run(
    spec: JobSpec,
    *,
    folder: Path,
    on_status: OnStatus,
    should_stop: Callable[[], bool],
    source: Source | None = None,
    clock: Clock | None = None,
) -> Observation:
    """Train until the end of the stream, until told to stop, or until the job is blocked or has failed.

    It goes on from the newest checkpoint in `folder`, if there is one.

    Args:
        spec: the job.
        folder: of this job's checkpoints.
        on_status: called about four times a second with the status and what has happened since.
        should_stop: asked between steps; True for a last checkpoint and an end.
        source: for tests; by default the topic of the spec.
        clock: for tests.

    Returns:
        How it ended; `outcome` is none when another process has taken the job over.
    """
    tracker = Tracker(clock or SystemClock())
    try:
        with closing(source or KafkaSource(spec.source)) as opened:
            job = LocalJob(spec, CheckpointStore(folder), opened, tracker, on_status)
            outcome, reason, message = job.run(should_stop), "", ""
    except DtrainError as error:
        (outcome, reason), message = verdict_of(error), str(error)
    return Observation(is_alive=False, outcome=outcome, reason=reason, message=message, status=tracker.status())


class LocalJob:
    """One attempt of a job, all of it in this process."""

    def __init__(self, spec: JobSpec, store: CheckpointStore, source: Source, tracker: Tracker, on_status: OnStatus) -> None:
        self._spec = spec
        self._source = source
        self._tracker = tracker
        self._on_status = on_status
        self._clock = tracker.clock
        self._rank = Rank(spec, store)
        self._schema = Schema(self._rank.schema)
        self._ledger = self._open(store)
        self._parent = self._settle()
        self._cutter = new_cutter(spec, self._progress, ends=self._parent.ends)
        self._feed: Feed | None = None
        self._blocks: dict[int, pa.RecordBatch] = {}
        self._num_blocks = 0
        now_s = self._clock.monotonic_s()
        self._cadence = CheckpointCadence(spec.checkpoint.every, now_s, self._progress.plan_number)
        self._status_at_s = now_s
        self._cursor = 0

    def run(self, should_stop: Callable[[], bool]) -> Outcome:
        """Train; each turn is: read, cut, step, and now and then a checkpoint."""
        try:
            return self._run(should_stop)
        finally:
            if self._feed is not None:
                self._feed.close()

    def _run(self, should_stop: Callable[[], bool]) -> Outcome:
        while not self._cutter.is_finished:
            if should_stop():
                self._checkpoint()
                return Outcome.STOPPED
            self._read()
            self._check(self._cutter.passed)  # a stream of bad records alone is never cut
            while (cut := self._cutter.cut(now_s=self._clock.monotonic_s())) is not None:
                self._step(cut)
                if should_stop():
                    break
            if self._cadence.is_due(
                now_s=self._clock.monotonic_s(), plan_number=self._progress.plan_number + bool(self._cutter.passed)
            ):
                self._try_checkpoint()
            self._tell()
        if not self._ledger.durable or not self._ledger.durable.is_final:
            self._checkpoint()
        self._tell(is_last=True)
        return Outcome.SUCCEEDED

    @property
    def _progress(self) -> Progress:
        return self._rank.replica.progress

    def _open(self, store: CheckpointStore) -> Ledger:
        incarnation = max((fence.incarnation for fence in store.fences().values()), default=0) + 1
        return Ledger.open(
            store,
            self._spec,
            job_id=self._spec.name,
            incarnation=incarnation,
            accept_code_change=False,
            clock=self._clock,
        )

    def _settle(self) -> Manifest:
        """The replica stands where the attempt begins: at its parent, or at checkpoint 0, which is durable then."""
        self._rank.join(InlineCollective())
        parent = self._ledger.durable
        if parent is None:
            origin = Origin(self._source.identify().to_json(), self._source.resolve_end())
            snapshot = self._rank.genesis(self._source.resolve_start())
            parent = self._ledger.begin(snapshot, origin=origin, schema=self._rank.schema)
        self._rank.load(blob=parent.blob, progress=parent.progress)
        self._tracker.attempt, self._tracker.world_size = self._ledger.attempt.number, 1
        self._tracker.stands_at(parent.progress)
        self._tracker.happened("attempt", f"attempt {self._ledger.attempt.number} begins at checkpoint {parent.name}")
        return parent

    def _follow(self) -> Feed:
        return self._source.follow(
            self._cutter.read_to,
            schema=self._schema,
            ends=self._parent.ends,
            identity=Identity.from_json(self._parent.identity),
            marks={p: Mark(*mark) for p, mark in self._progress.marks.items()},
        )

    def _read(self) -> None:
        """Blocks that have come wait in the cutter. A broker that does not answer is asked again, for ever."""
        enough_rows = 4 * self._spec.batch.rows
        if not self._cutter.has_room(enough_rows):
            return  # backpressure: what waits is enough
        try:
            self._feed = self._feed or self._follow()
            self._feed.hold(self._cutter.sated(enough_rows))
            blocks = self._feed.poll(max_wait_s=_POLL_S)
        except UnavailableError as error:
            self._tracker.happened("source", str(error))
            if self._feed is not None:
                self._feed.close()
            self._feed = None
            self._clock.sleep(1.0)
            return
        for block in blocks:
            self._num_blocks += 1
            if block.meta.num_rows:
                self._blocks[self._num_blocks] = block.batch
            self._cutter.add(self._num_blocks, block.meta, now_s=self._clock.monotonic_s())
            self._tracker.read(num_offsets=len(block.meta.offsets), num_rows=block.meta.num_rows)
        self._tracker.end_offsets = dict(self._feed.end_offsets())

    def _step(self, cut: Cut) -> None:
        self._check(cut.ranges)
        plan = Plan(self._progress.plan_number + 1, StepKind.DATA, cut.ranges, cut.num_rows)
        batches = self._rank.stage(cut.pieces, self._blocks, num_rows=cut.num_rows)
        self._rank.step(plan, batches, newest_ms=cut.newest_ms)
        for block in cut.exhausted:
            del self._blocks[block]
        self._tell()

    def _check(self, ranges: Sequence[RowRange]) -> None:
        check_rejects(
            ranges,
            budget=self._spec.source.reject_budget,
            rows_trained=self._progress.rows_trained,
            rows_rejected=self._progress.rows_rejected,
        )

    def _try_checkpoint(self) -> None:
        try:
            self._checkpoint()
        except (StorageError, UnavailableError) as error:  # the last one stands; training goes on; the cadence tries again
            self._tracker.happened("checkpoint", f"failed: {error}")
            self._cadence.done()

    def _checkpoint(self) -> None:
        ranges = self._cutter.pass_over()
        self._check(ranges)
        plan = Plan(self._progress.plan_number + 1, StepKind.CHECKPOINT, ranges)
        self._rank.replica.control(plan)
        self._cadence.cut(now_s=self._clock.monotonic_s(), plan_number=plan.number)
        snapshot = self._rank.write(*self._rank.copy())
        manifest = self._ledger.commit(snapshot, flush_rejects=self._flush_rejects, give_back=self._give_back)
        self._rank.replica.seal(snapshot.progress.segments[-1])
        self._cadence.done()
        self._tracker.last_checkpoint, self._tracker.last_checkpoint_at_s = manifest.name, manifest.written_at_s
        self._tracker.happened("checkpoint", f"{manifest.name} at step {manifest.progress.step}")

    def _flush_rejects(self, ranges: Sequence[RowRange]) -> None:
        dead_letters = self._spec.source.dead_letters
        if dead_letters is not None:
            self._source.send_rejects(ranges, to_topic=dead_letters.send_to, job_id=self._spec.name)

    def _give_back(self, progress: Progress) -> None:
        try:
            self._source.commit(progress.positions, group=f"dtrain-{self._spec.name}")
        except UnavailableError as error:  # advisory: lag tools see it late
            self._tracker.happened("commit", str(error))

    def _tell(self, *, is_last: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._status_at_s < _STATUS_EVERY_S and not is_last:
            return
        self._status_at_s = now_s
        self._tracker.report(self._rank.report())
        happenings, self._cursor = self._tracker.happenings(self._cursor)
        self._on_status(self._tracker.status(), happenings)
