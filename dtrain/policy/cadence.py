"""Cadence: when a checkpoint is due."""

from __future__ import annotations

from dataclasses import dataclass

RETRY_S = 2.0
MAX_RETRY_S = 60.0


@dataclass(slots=True)
class CheckpointCadence:
    """Checkpoints every `every_s` seconds, and none where nothing has happened since.

    Args:
        every_s: time from one cut to the next.
        last_s: monotonic time of the last cut.
        last_plan: plan number that the last checkpoint covers.
        is_wanted: somebody asked for one.
        retry_at_s: monotonic time before which none is cut, because the last one could not be written.
        retry_s: how long the next one that cannot be written is waited for.
    """

    every_s: float
    last_s: float
    last_plan: int
    is_wanted: bool = False
    retry_at_s: float = 0.0
    retry_s: float = RETRY_S

    def is_due(self, *, now_s: float, plan_number: int) -> bool:
        """Whether to cut one now, behind `plan_number`."""
        return self.is_wanted or (plan_number != self.last_plan and now_s - self.last_s >= self.every_s)

    def cut(self, *, now_s: float, plan_number: int) -> None:
        """A checkpoint was cut as `plan_number`."""
        self.last_s, self.last_plan, self.is_wanted = now_s, plan_number, False

    def done(self) -> None:
        """The one that was cut is durable."""
        self.retry_s = RETRY_S

    def postpone(self, *, now_s: float) -> None:
        """The one that was cut could not be written: another is wanted, later each time: what was written of each is left behind."""
        self.is_wanted = True
        self.retry_at_s, self.retry_s = now_s + self.retry_s, min(2 * self.retry_s, MAX_RETRY_S)
