"""The tracker: from what trainers and the reader report to what a job says about itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dtrain.clock import Clock
from dtrain.job.status import Happening, JobStatus, Member, PartitionStatus
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.report import TrainReport

_RATE_WINDOW_S = 5.0


@dataclass(slots=True)
class Tracker:
    """Keeps a job's status and its happenings, and hands them out. One thread at a time."""

    clock: Clock
    attempt: int = 0
    generation: int = 0
    world_size: int = 0
    members: tuple[Member, ...] = ()
    end_offsets: dict[Partition, int] = field(default_factory=dict)
    num_recoveries: int = 0
    last_recovery_s: float | None = None
    last_checkpoint: str = ""
    last_checkpoint_at_s: float = 0.0
    metrics_port: int = 0
    waits_for: Callable[[], Sequence[Partition]] = tuple
    _report: TrainReport | None = None
    _progress: Progress = field(default_factory=Progress)
    _rates: deque[tuple[float, int]] = field(default_factory=deque)
    _read: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By topic: offsets and rows of what was read."""
    _happenings: deque[Happening] = field(default_factory=lambda: deque(maxlen=1000))
    _num_happened: int = 0

    def happened(self, kind: str, message: str) -> None:
        """Something is worth a line in the job's history; what repeats itself is one line."""
        if self._happenings and (self._happenings[-1].kind, self._happenings[-1].message) == (kind, message):
            return
        self._happenings.append(Happening(self.clock.wall_s(), kind, message))
        self._num_happened += 1

    def happenings(self, cursor: int) -> tuple[tuple[Happening, ...], int]:
        """What happened after `cursor`, and the cursor behind it."""
        fresh = self._num_happened - cursor
        lines = tuple(self._happenings)[-fresh:] if fresh > 0 else ()
        return lines, self._num_happened

    def read(self, meta: BlockMeta) -> None:
        """A block was read: so many offsets held so many rows; how lag in rows is estimated."""
        offsets, rows = self._read.get(meta.partition.topic, (0, 0))
        self._read[meta.partition.topic] = offsets + meta.end.offset - meta.start.offset, rows + meta.num_rows

    def stands_at(self, progress: Progress) -> None:
        """Replicas went back, or on, to `progress` without training."""
        self._progress = progress
        self._rates.clear()
        self._rates.append((self.clock.monotonic_s(), progress.rows_trained))

    def report(self, report: TrainReport) -> None:
        """Replicas have trained on."""
        self._report = report
        self._progress = report.progress
        now_s = self.clock.monotonic_s()
        self._rates.append((now_s, report.progress.rows_trained))
        while len(self._rates) > 2 and self._rates[0][0] < now_s - _RATE_WINDOW_S:
            self._rates.popleft()

    def status(self) -> JobStatus:
        """The job's status now."""
        report = self._report
        progress = self._progress
        now_s = self.clock.wall_s()
        newest_s = report.newest_ms / 1000 if report and report.newest_ms else None
        lag_rows = self._lag_rows()
        return JobStatus(
            attempt=self.attempt,
            generation=self.generation,
            world_size=self.world_size,
            plan_number=progress.plan_number,
            step=progress.step,
            rows_trained=progress.rows_trained,
            rows_rejected=progress.rows_rejected,
            rejects=dict(progress.rejects),
            rows_skipped=progress.rows_skipped,
            rows_filtered=progress.left_out.filtered,
            rows_duplicate=progress.left_out.duplicate,
            rows_held_out=progress.left_out.held_out,
            offsets_skipped=progress.offsets_skipped,
            waits_for=tuple(map(str, self.waits_for())),
            rows_per_s=self._rows_per_s(),
            loss=report.loss if report else None,
            scores=dict(report.scores) if report else {},
            total_loss=report.total_loss if report else None,
            total_scores=dict(report.total_scores) if report else {},
            held_out_loss=report.held_out_loss if report else None,
            held_out_scores=dict(report.held_out_scores) if report else {},
            partitions=self._partitions(),
            lag_rows=lag_rows,
            lag_s=max(0.0, now_s - newest_s) if newest_s and lag_rows else 0.0,
            freshness_s=max(0.0, now_s - newest_s) if newest_s else None,
            num_recoveries=self.num_recoveries,
            last_recovery_s=self.last_recovery_s,
            last_checkpoint=self.last_checkpoint,
            last_checkpoint_at_s=self.last_checkpoint_at_s,
            members=self.members,
            metrics_port=self.metrics_port,
            updated_at_s=now_s,
        )

    def _partitions(self) -> tuple[PartitionStatus, ...]:
        positions = self._progress.positions
        return tuple(
            PartitionStatus(str(p), *positions[p], max(self.end_offsets.get(p, 0), positions[p].offset))
            for p in sorted(positions)
        )

    def _lag_rows(self) -> int:
        """An estimate: offsets have gaps, and a record may hold many rows (invariant 8)."""
        lag_rows = 0.0
        for partition, end in self.end_offsets.items():
            offsets, rows = self._read.get(partition.topic, (0, 0))
            behind = max(0, end - self._progress.positions.get(partition, Position(end)).offset)
            lag_rows += behind * (rows / offsets if offsets else 1.0)
        return round(lag_rows)

    def _rows_per_s(self) -> float:
        if len(self._rates) < 2 or self._rates[-1][0] < self.clock.monotonic_s() - _RATE_WINDOW_S:
            return 0.0
        (t0, r0), (t1, r1) = self._rates[0], self._rates[-1]
        return max(0.0, (r1 - r0) / (t1 - t0)) if t1 > t0 else 0.0
