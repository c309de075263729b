"""The report: what a replica says about itself while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dtrain.steplog.progress import Progress


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What one trainer says for all of its generation: a step is a collective, so the others stand there too, or one behind.

    Args:
        progress: of the replica.
        newest_ms: Kafka timestamp of the newest row trained; 0 for none.
        loss: mean over the window; None without rows.
        scores: over the window.
        total_loss: mean over the job.
        total_scores: over the job.
        held_out_loss: mean over the window of held-out rows; None without such.
        held_out_scores: over the same.
        steps_s: seconds of each data step since the last report.
    """

    progress: Progress
    newest_ms: int
    loss: float | None
    scores: Mapping[str, float]
    total_loss: float | None
    total_scores: Mapping[str, float]
    held_out_loss: float | None = None
    held_out_scores: Mapping[str, float] = field(default_factory=dict)
    steps_s: Sequence[float] = ()
