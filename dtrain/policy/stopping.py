"""Stopping: when more training is not worth it."""

from __future__ import annotations

from dataclasses import dataclass

from dtrain.steplog.report import TrainReport


@dataclass(slots=True)
class EarlyStop:
    """Says stop when the windowed score has not got better for `patience_rows` trained rows.

    A new attempt begins to count anew: what the best score was is not part of the truth.

    Args:
        metric: `loss`, which falls, or a score that grows.
        patience_rows: rows to wait for a better one.
        min_delta: by how much it has to be better.
        best: so far; None before the first.
        best_rows: rows trained when it was seen.
    """

    metric: str
    patience_rows: int
    min_delta: float = 0.0
    best: float | None = None
    best_rows: int = 0

    def verdict(self, report: TrainReport) -> str:
        """Why the job should end with what `report` says; empty while it should not. Ask once for each report, in their order."""
        value = report.loss if self.metric == "loss" else report.scores.get(self.metric)
        rows = report.progress.rows_trained
        if value is None or self._is_better(value):
            self.best, self.best_rows = (self.best if value is None else value), rows
        if rows - self.best_rows < self.patience_rows:
            return ""
        return f"{self.metric} has not been better than {self.best:.6g} since {self.best_rows:,} of {rows:,} rows"

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        gain = self.best - value if self.metric == "loss" else value - self.best
        return gain > self.min_delta
