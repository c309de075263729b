"""The checkpoints of one attempt, one at a time: the counterpart of `runtime.checkpointing`, with the real ledger."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from dtrain.checkpoint.manifest import Manifest, Snapshot
from dtrain.errors import FencedError
from dtrain.runtime.ledger import Ledger
from dtrain.runtime.planner import Planner
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from tests.simulation.disk import Errand
from tests.simulation.stream import Coordinate, rejects_of

if TYPE_CHECKING:
    from tests.simulation.coordinator import Coordinator


class Checkpoints:
    def __init__(self, coordinator: Coordinator, ledger: Ledger) -> None:
        assert ledger.durable is not None
        self.durable: Manifest = ledger.durable
        self._coordinator, self._ledger = coordinator, ledger
        self._world, self._rules = coordinator.world, coordinator.rules
        self._cut = self._committing = 0  # plan number of the one that is pending, and of that which is being committed
        self._writer: int | None = None  # who has it, once it has been cut for sure
        self.rejects: set[Coordinate] = set()
        """Bad rows that this coordinator has read in this attempt; only where a rule is off they mean anything."""

    @property
    def is_pending(self) -> bool:
        return self._cut > 0

    def issue(self, planner: Planner, *, is_last: bool) -> None:
        self._cut, self._writer = planner.checkpoint(is_barrier=is_last), None

    def reformed(self, *, lowest: int | None, present: Collection[int], plan_number: int) -> None:
        """One whose writer is lost is abandoned, unless it is being committed already."""
        if self._cut and self._committing != self._cut <= plan_number and self._rules.snapshot_abandon:
            self._writer = lowest if self._writer is None else self._writer
            self._cut = self._cut if self._writer in present else 0

    def wrote(self, snapshot: Snapshot) -> None:
        number = snapshot.progress.plan_number
        if number == self._cut != self._committing:
            self._committing = number
            if not self._rules.segments_in_replica:
                names = (*self.durable.progress.segments, *snapshot.progress.segments[-1:])
                snapshot = replace(snapshot, progress=replace(snapshot.progress, segments=names))
            self._coordinator.send_out(lambda: self._commit(snapshot), self._committed)

    def _commit(self, snapshot: Snapshot) -> Manifest:
        """The errand: dead letters, manifest, a look at the fences, effects, keep-N."""
        oracle, attempt = self._world.oracle, self._ledger.attempt.number

        def flush_rejects(ranges: list[RowRange]) -> None:
            mine = self.rejects & rejects_of(snapshot.progress)
            logged = {(item.partition, reject.offset) for item in ranges for reject in item.rejects}
            oracle.dead_letters |= logged if self._rules.rejects_from_log else mine

        def give_back(progress: Progress) -> None:
            oracle.effect("gave positions back", (attempt, progress.plan_number))

        return self._ledger.commit(snapshot, flush_rejects=flush_rejects, give_back=give_back)

    def _committed(self, errand: Errand) -> None:
        if self._coordinator.checkpoints is not self:  # the attempt is over
            return None
        cut, planner = self._cut, self._coordinator.planner
        self._cut = self._committing = 0
        if isinstance(errand.error, FencedError):
            return self._coordinator.die(f"exits: {errand.error}")
        if errand.error is not None:
            return planner.lift(cut)
        self.durable = errand.result
        planner.seal(self.durable.progress)
        if self.durable.is_final and self.durable.ref.plan_number == planner.plan_number:
            self._world.succeed(self._coordinator, self.durable)
        return None
