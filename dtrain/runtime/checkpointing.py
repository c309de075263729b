"""Checkpointing: when one is cut, by whom it is written, and what is durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from dtrain.checkpoint.manifest import Manifest, Snapshot
from dtrain.clock import Clock
from dtrain.errors import CollectiveError, DtrainError, StorageError, UnavailableError
from dtrain.policy.cadence import CheckpointCadence
from dtrain.runtime.ledger import Ledger
from dtrain.runtime.planner import Planner
from dtrain.runtime.reading import Readers
from dtrain.runtime.tasks import TaskSet
from dtrain.runtime.tracker import Tracker
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange


@dataclass(slots=True)
class _Pending:
    """A checkpoint that was cut and is not durable.

    Args:
        plan_number: of its control step.
        writer: the member that has it, once it has been cut for sure.
        is_committing: its manifest is being written: whoever wrote the rest is not needed any more.
    """

    plan_number: int
    writer: int | None = None
    is_committing: bool = False


class Checkpointing:
    """One attempt's checkpoints, one at a time. On the coordinator's event loop; the store is asked in threads.

    Args:
        ledger: of the attempt.
        durable: the checkpoint that it begins with.
        planner: issues the control steps.
        readers: send dead letters, give positions back to Kafka.
        tracker: told of everything.
        clock: for the cadence.
        wake: called when something is durable, or is to be tried again.
        fail: called with what ends the attempt.
        on_checkpoint: told how long each commit took, in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        durable: Manifest,
        planner: Planner,
        readers: Readers,
        tracker: Tracker,
        clock: Clock,
        wake: Callable[[], None],
        fail: Callable[[DtrainError], None],
        on_checkpoint: Callable[[float], None],
    ) -> None:
        self._ledger = ledger
        self._planner = planner
        self._readers = readers
        self._tracker = tracker
        self._clock = clock
        self._wake = wake
        self._fail = fail
        self._on_checkpoint = on_checkpoint
        self._tasks = TaskSet(fail)
        self._cadence = CheckpointCadence(ledger.spec.checkpoint.every, clock.monotonic_s(), durable.progress.plan_number)
        self._pending: _Pending | None = None
        self.durable = durable
        self.has_committed = False

    @property
    def is_pending(self) -> bool:
        """One is being written, or has just failed: not now."""
        return self._pending is not None or self._clock.monotonic_s() < self._cadence.retry_at_s

    def want(self) -> None:
        """Cut one soon."""
        self._cadence.is_wanted = True
        self._wake()

    def cut_if_due(self, *, is_last: bool) -> bool:
        """A checkpoint is issued if it is time, or the end; whether it was. Nothing follows the last one."""
        planner, now_s = self._planner, self._clock.monotonic_s()
        if self.is_pending:
            return False
        has_passed = bool(planner.cutter.passed)
        is_due = self._cadence.is_due(now_s=now_s, plan_number=planner.plan_number + has_passed)
        if not (is_due or is_last or (has_passed and planner.cutter.is_laden)):
            return False
        self._pending = _Pending(planner.checkpoint(is_barrier=is_last))
        self._cadence.cut(now_s=now_s, plan_number=self._pending.plan_number)
        return True

    def reformed(self, *, lowest: int | None, present: Collection[int], plan_number: int) -> None:
        """A generation has ended and another begins at `plan_number`; a checkpoint whose writer is lost is abandoned.

        Args:
            lowest: the member that had rank 0: it writes what was cut in its generation; None if it has lost its state.
            present: members that stay: whoever is let go writes nothing more.
            plan_number: of the source.
        """
        pending = self._pending
        if pending is None or pending.is_committing or pending.plan_number > plan_number:
            return  # nothing is pending, or all of it is here, or the next generation cuts it
        pending.writer = lowest if pending.writer is None else pending.writer
        if pending.writer not in present:
            self._tracker.happened("checkpoint", "its writer was lost; another is cut")
            self._pending = None
            self._cadence.is_wanted = True

    def wrote(self, snapshot: Snapshot | None, error: DtrainError | None) -> None:
        """The lowest rank has written a checkpoint's blob and segment, or could not."""
        pending = self._pending
        if snapshot is not None:
            if pending is not None and snapshot.progress.plan_number == pending.plan_number and not pending.is_committing:
                pending.is_committing = True
                self._tasks.run(self._commit(snapshot))
        elif isinstance(error, StorageError | UnavailableError):
            self._postpone(error)
        else:
            self._fail(error or CollectiveError("a checkpoint was not written"))

    def close(self) -> None:
        """No commit goes on."""
        self._tasks.cancel()

    async def _commit(self, snapshot: Snapshot) -> None:
        began_s = self._clock.monotonic_s()
        try:
            manifest = await asyncio.to_thread(
                self._ledger.commit, snapshot, flush_rejects=self._flush_rejects, give_back=self._give_back
            )
        except (StorageError, UnavailableError) as error:
            self._postpone(error)
            return
        self._planner.seal(manifest.progress)
        self._pending = None
        self._cadence.done()
        self.durable, self.has_committed = manifest, True
        self._tracker.last_checkpoint, self._tracker.last_checkpoint_at_s = manifest.name, manifest.written_at_s
        self._on_checkpoint(self._clock.monotonic_s() - began_s)
        self._tracker.happened("checkpoint", f"{manifest.name} at step {manifest.progress.step}")
        self._wake()

    def _postpone(self, error: DtrainError) -> None:
        """The last checkpoint stands and training goes on; another is cut a little later."""
        self._tracker.happened("checkpoint", f"failed, will be tried again: {error}")
        if self._pending is not None:
            self._planner.lift(self._pending.plan_number)
        self._pending = None
        self._cadence.postpone(now_s=self._clock.monotonic_s())
        self._wake()

    def _flush_rejects(self, ranges: Sequence[RowRange]) -> None:
        dead_letters = self._ledger.spec.source.dead_letters
        if dead_letters is not None:
            self._readers.send_rejects(ranges, to_topic=dead_letters.send_to, job_id=self._ledger.job_id)

    def _give_back(self, progress: Progress) -> None:
        self._readers.commit(progress.positions, group=f"dtrain-{self._ledger.job_id}")
