"""Cadence: when a checkpoint is due."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class CheckpointCadence:
    """Checkpoints every `every_s` seconds, one at a time, and none where nothing has happened since.

    Args:
        every_s: time from one cut to the next.
        last_s: monotonic time of the last cut.
        last_plan: plan number that the last checkpoint covers.
        is_pending: one is being written.
        is_wanted: somebody asked for one.
    """

    every_s: float
    last_s: float
    last_plan: int
    is_pending: bool = False
    is_wanted: bool = False

    def is_due(self, *, now_s: float, plan_number: int) -> bool:
        """Whether to cut one now, behind `plan_number`."""
        if self.is_pending or (plan_number == self.last_plan and not self.is_wanted):
            return False
        return self.is_wanted or now_s - self.last_s >= self.every_s

    def cut(self, *, now_s: float, plan_number: int) -> None:
        """A checkpoint was cut as `plan_number`."""
        self.last_s, self.last_plan, self.is_pending, self.is_wanted = now_s, plan_number, True, False

    def done(self) -> None:
        """The pending one is durable."""
        self.is_pending = False
