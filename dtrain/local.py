"""A whole job in one process: the same job file, the same log and checkpoints, without Ray and without gRPC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa

from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.store import CheckpointStore
from dtrain.clock import Clock, SystemClock
from dtrain.data.schema import Schema, check_same
from dtrain.errors import DataLossError, DtrainError, StorageError, UnavailableError
from dtrain.job.status import Happening, JobStatus, Observation, Outcome
from dtrain.packages.cache import use
from dtrain.policy.cadence import CheckpointCadence
from dtrain.policy.dealing import Dealer, Dealt
from dtrain.policy.rejects import check_rejects
from dtrain.policy.shedding import shed
from dtrain.policy.verdict import verdict_of
from dtrain.rank import Rank
from dtrain.runtime.ledger import Ledger, Origin
from dtrain.runtime.planner import new_cutter, new_early_stop
from dtrain.runtime.requirements import lock_of
from dtrain.runtime.tracker import Tracker
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.moves import Change
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.stream.feed import Feed
from dtrain.stream.log import Identity
from dtrain.stream.source import Source
from dtrain.stream.sources import open_source
from dtrain.train.gradient import SpanBatch

_POLL_S = 0.05
_STATUS_EVERY_S = 0.25
_DISCOVER_EVERY_S = 2.0
OnStatus = Callable[[JobStatus, Sequence[Happening]], None]


def run(
    spec: JobSpec,
    *,
    folder: str | Path,
    on_status: OnStatus,
    should_stop: Callable[[], bool],
    source: Source | None = None,
    clock: Clock | None = None,
    allow_gap: bool = False,
    accept_code_change: bool = False,
) -> Observation:
    """Train until the end of the stream, until told to stop, or until the job is blocked or has failed.

    It goes on from the newest checkpoint in `folder`, if there is one.

    Args:
        spec: the job.
        folder: of this job's checkpoints, or a URL of an object store.
        on_status: called about four times a second with the status and what has happened since.
        should_stop: asked between steps; True for a last checkpoint and an end.
        source: for tests; by default the topic of the spec.
        clock: for tests.
        allow_gap: what the topic has lost is passed over, by the log.
        accept_code_change: other code than the checkpoint's, or other packages, are no reason to stop; the log says so.

    Returns:
        How it ended; `outcome` is none when another process has taken the job over.
    """
    tracker, cursor = Tracker(clock or SystemClock()), 0

    def tell(words: str) -> None:
        nonlocal cursor
        tracker.happened("packages", words)
        happenings, cursor = tracker.happenings(cursor)
        on_status(tracker.status(), happenings)

    try:
        store = open_store(folder)
        lock = lock_of(spec, store, code=spec.code, tell=tell)
        use(lock, on_install=lambda packages: tell(f"installing {packages}"))
        with closing(source or open_source(spec)) as opened:
            job = LocalJob(
                spec,
                store,
                opened,
                tracker,
                on_status,
                allow_gap=allow_gap,
                accept_code_change=accept_code_change,
                lock=lock,
                cursor=cursor,
            )
            outcome, reason, message = job.run(should_stop), "", job.message
    except DtrainError as error:
        (outcome, reason), message = verdict_of(error), str(error)
    return Observation(is_alive=False, outcome=outcome, reason=reason, message=message, status=tracker.status())


class LocalJob:
    """One attempt of a job, all of it in this process."""

    def __init__(
        self,
        spec: JobSpec,
        store: CheckpointStore,
        source: Source,
        tracker: Tracker,
        on_status: OnStatus,
        *,
        allow_gap: bool,
        accept_code_change: bool,
        lock: str,
        cursor: int,
    ) -> None:
        self._spec = spec
        self._source = source
        self._tracker = tracker
        self._on_status = on_status
        self._clock = tracker.clock
        self._rank = Rank(spec, store)
        self._stager = self._rank.begin_alone()
        self._schema = Schema(self._rank.schema)
        self._ledger = self._open(store, accept_code_change=accept_code_change, lock=lock)
        self._parent = self._settle()
        self._cutter = new_cutter(spec, self._progress, ends=self._parent.ends)
        self._dealer = Dealer(self._cutter, seed=spec.shuffle_seed, span=self._progress.span)
        tracker.waits_for = lambda: self._cutter.lacking
        self._allow_gap = allow_gap
        self._feed: Feed | None = None
        self._blocks: dict[int, pa.RecordBatch] = {}
        self._num_blocks = 0
        now_s = self._clock.monotonic_s()
        self._cadence = CheckpointCadence(spec.checkpoint.every, now_s, self._progress.plan_number)
        self._status_at_s = self._discovered_at_s = now_s
        self._cursor = cursor
        self._early_stop = new_early_stop(spec)
        self.message = ""
        """Why the job ends before its stream does, if it does."""

    def run(self, should_stop: Callable[[], bool]) -> Outcome:
        """Train; each turn is: read, cut, step, and now and then a checkpoint."""
        try:
            return self._run(should_stop)
        finally:
            self._close_feed()

    def _run(self, should_stop: Callable[[], bool]) -> Outcome:
        while not self._dealer.is_finished and not (self.message and not self._dealer.is_open):
            if should_stop():
                self._checkpoint()
                return Outcome.STOPPED
            self._reopen()
            self._read()
            self._shed()
            self._check(self._cutter.passed)  # a stream of bad records alone is never cut
            while (dealt := self._dealer.deal(now_s=self._clock.monotonic_s(), may_open=not self.message)) is not None:
                self._step(dealt)
                if should_stop() or (self._dealer.is_open and self._is_checkpoint_due):
                    break
            if self._is_checkpoint_due or (self._cutter.passed and self._cutter.is_laden):
                self._try_checkpoint()
            self._tell()
        if not self._ledger.durable or not self._ledger.durable.is_final:
            self._checkpoint()
        self._tell(is_last=True)
        return Outcome.SUCCEEDED

    @property
    def _is_checkpoint_due(self) -> bool:
        plan_number = self._progress.plan_number + bool(self._cutter.passed)
        return self._cadence.is_due(now_s=self._clock.monotonic_s(), plan_number=plan_number)

    @property
    def _progress(self) -> Progress:
        return self._rank.replica.progress

    def _open(self, store: CheckpointStore, *, accept_code_change: bool, lock: str) -> Ledger:
        incarnation = max((fence.incarnation for fence in store.fences().values()), default=0) + 1
        return Ledger.open(
            store,
            self._spec,
            job_id=self._spec.name,
            incarnation=incarnation,
            accept_code_change=accept_code_change,
            clock=self._clock,
            lock=lock,
        )

    def _settle(self) -> Manifest:
        """The replica stands where the attempt begins: at its parent, or at checkpoint 0, which is durable then."""
        parent = self._ledger.durable
        if parent is None:
            origin = Origin(self._source.identify().to_json(), self._source.resolve_end())
            snapshot = self._rank.genesis(self._source.resolve_start())
            parent = self._ledger.begin(snapshot, origin=origin, schema=self._rank.schema)
        check_same(parent.schema, self._rank.schema, checkpoint=parent.name)
        self._rank.load(blob=parent.blob, progress=parent.progress)
        self._tracker.attempt, self._tracker.world_size = self._ledger.attempt.number, 1
        self._tracker.stands_at(parent.progress)
        self._tracker.happened("attempt", f"attempt {self._ledger.attempt.number} begins at checkpoint {parent.name}")
        return parent

    @property
    def _identity(self) -> Identity:
        return Identity.from_json(self._parent.identity, later=self._progress.topics)

    def _follow(self) -> Feed:
        if self._allow_gap:
            self._change(
                self._source.gaps(
                    self._cutter.read_to, ends=self._parent.ends, identity=self._identity, marks=self._cutter.marks
                ),
                kind="gap",
            )
            self._allow_gap = False
        return self._source.follow(
            self._cutter.read_to, schema=self._schema, ends=self._parent.ends, identity=self._identity, marks=self._cutter.marks
        )

    def _change(self, change: Change, *, kind: str) -> None:
        """What is read changes from here on; a feed that was open is closed."""
        if not change.moves:
            return
        for block in self._dealer.withhold(self._cutter.move(change.moves)):
            self._blocks.pop(block, None)
        plan = Plan(self._progress.plan_number + 1, StepKind.MOVE, moves=change.moves, topics=change.topics)
        self._rank.replica.control(plan)
        for move in change.moves:
            self._tracker.happened(kind, str(move))
        self._cadence.is_wanted = True
        self._close_feed()

    def _shed(self) -> None:
        """Rows that have waited for too long are passed over, where the job wants that."""
        on_lag, now_s = self._spec.source.on_lag, self._clock.wall_s()
        if on_lag != "wait":
            change = shed(self._cutter, end_offsets=self._tracker.end_offsets, over_s=on_lag.over, now_s=now_s)
            self._change(change, kind="lag")

    def _close_feed(self) -> None:
        if self._feed is not None:
            self._feed.close()
        self._feed = None

    def _discover(self) -> None:
        """Partitions that have come are read from now on."""
        now_s = self._clock.monotonic_s()
        if self._spec.source.grows and now_s > self._discovered_at_s + _DISCOVER_EVERY_S:
            self._discovered_at_s = now_s
            self._change(self._source.discover(self._cutter.positions, identity=self._identity), kind="partition")

    def _reopen(self) -> None:
        """The rows of a span that was open when this began are read again; where they are gone and that is allowed, the log says so."""
        if not self._dealer.missing:
            return
        ranges, pieces = self._dealer.missing, []
        try:
            batches = self._source.fetch(ranges, schema=self._schema)
        except UnavailableError as error:
            self._tracker.happened("source", str(error))
            self._clock.sleep(1.0)
            return
        except DataLossError as error:
            if not self._allow_gap:
                raise
            self._tracker.happened("gap", f"the rest of a span is not trained: {error.reason}")
            self._dealer.give_up()
            return
        for item, batch in zip(ranges, batches, strict=True):
            self._num_blocks += 1
            self._blocks[self._num_blocks] = batch
            pieces.append((self._num_blocks, 0, item.num_rows))
        self._dealer.reopen(pieces, exhausted=[block for block, _, _ in pieces])

    def _read(self) -> None:
        """Blocks that have come wait in the cutter. A broker that does not answer is asked again, for ever."""
        enough_rows = self._spec.batch.span_rows + 3 * self._spec.batch.rows
        if not self._cutter.has_room(enough_rows):
            return  # backpressure: what waits is enough
        try:
            self._discover()
            self._feed = self._feed or self._follow()
            self._feed.hold(self._cutter.sated(enough_rows))
            blocks = self._feed.poll(max_wait_s=_POLL_S)
            for words in self._feed.news():
                self._tracker.happened("source", words)
        except UnavailableError as error:
            self._tracker.happened("source", str(error))
            self._close_feed()
            self._clock.sleep(1.0)
            return
        except DataLossError:
            self._try_checkpoint()  # what was trained before is kept
            raise
        for block in blocks:
            self._num_blocks += 1
            if block.meta.num_batch_rows:
                self._blocks[self._num_blocks] = block.batch
            self._cutter.add(self._num_blocks, block.meta, now_s=self._clock.monotonic_s())
            self._tracker.read(block.meta)
        self._tracker.end_offsets = dict(self._feed.end_offsets())
        self._cutter.heard(self._tracker.end_offsets)

    def _step(self, dealt: Dealt) -> None:
        cut, part = dealt.cut, dealt.part
        self._check(cut.ranges)
        skipped = "lost" if dealt.is_lost else ""
        plan = Plan(self._progress.plan_number + 1, StepKind.DATA, cut.ranges, dealt.num_rows, skipped, part=part)
        batches: Sequence[SpanBatch] = ()
        if not skipped:
            batches = self._stager.stage(cut.pieces, self._blocks, num_rows=dealt.num_rows, held_out=cut.held_out, part=part)
        self._rank.step(plan, batches, newest_ms=cut.newest_ms)
        for block in cut.exhausted:
            self._blocks.pop(block, None)
        self._tell()

    def _check(self, ranges: Sequence[RowRange]) -> None:
        check_rejects(
            ranges,
            budget=self._spec.source.reject_budget,
            window=self._progress.window,
            rows_good=self._progress.rows_sound + self._cutter.num_waiting,
        )

    def _try_checkpoint(self) -> None:
        try:
            self._checkpoint()
        except (StorageError, UnavailableError) as error:  # the last one stands; training goes on; the cadence tries again
            self._tracker.happened("checkpoint", f"failed: {error}")

    def _checkpoint(self) -> None:
        ranges, exhausted = self._cutter.pass_over()
        for block in self._dealer.withhold(exhausted):
            del self._blocks[block]
        self._check(ranges)
        plan = Plan(self._progress.plan_number + 1, StepKind.CHECKPOINT, ranges)
        self._rank.replica.control(plan)
        self._cadence.cut(now_s=self._clock.monotonic_s(), plan_number=plan.number)
        snapshot = self._rank.write(*self._rank.copy())
        manifest = self._ledger.commit(snapshot, flush_rejects=self._flush_rejects, give_back=self._give_back)
        self._rank.replica.seal(manifest.progress)
        self._tracker.last_checkpoint, self._tracker.last_checkpoint_at_s = manifest.name, manifest.written_at_s
        self._tracker.happened("checkpoint", f"{manifest.name} at step {manifest.progress.step}")

    def _flush_rejects(self, ranges: Sequence[RowRange]) -> None:
        dead_letters = self._spec.source.dead_letters
        if dead_letters is not None:
            self._source.send_rejects(ranges, to_topic=dead_letters.send_to, job_id=self._spec.name)

    def _give_back(self, progress: Progress) -> None:
        try:
            self._source.commit(progress.positions, group=f"dtrain-{self._spec.name}")
        except DtrainError as error:  # advisory: lag tools see it late, or never where the group is not allowed
            self._tracker.happened("commit", str(error))

    def _tell(self, *, is_last: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._status_at_s < _STATUS_EVERY_S and not is_last:
            return
        self._status_at_s = now_s
        report = self._rank.report()
        self._tracker.report(report)
        if self._early_stop is not None:
            self.message = self.message or self._early_stop.verdict(report)
        happenings, self._cursor = self._tracker.happenings(self._cursor)
        self._on_status(self._tracker.status(), happenings)
