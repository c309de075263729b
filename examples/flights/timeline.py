"""What the demo saw, moment by moment: the raw material of its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dtrain.job.status import JobStatus

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the job and at the producer.

    Args:
        at_s: seconds from the beginning of the demo.
        state: the job's.
        produced: rows that the broker had acknowledged.
        trained: rows in the weights.
        world_size: workers.
        loss, auroc: over the last window of rows.
        total_loss, total_auroc: over all rows so far.
    """

    at_s: float
    state: str
    produced: int
    trained: int
    world_size: int
    loss: float | None = None
    auroc: float | None = None
    total_loss: float | None = None
    total_auroc: float | None = None


def sample(status: JobStatus, *, at_s: float, state: str, produced: int) -> Sample:
    """A job's status as a sample."""
    return Sample(
        at_s=at_s,
        state=state,
        produced=produced,
        trained=status.rows_trained,
        world_size=status.world_size,
        loss=status.loss,
        auroc=status.scores.get("auroc"),
        total_loss=status.total_loss,
        total_auroc=status.total_scores.get("auroc"),
    )


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened: `kind` is kill, recovered, suspend, suspended, resume, resumed, or a word of the job's history."""

    at_s: float
    trained: int
    kind: str
    text: str


@dataclass
class Timeline:
    """Samples, marks, and samples of the frozen model, each in the order in which they came."""

    samples: list[Sample] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    frozen: list[Sample] = field(default_factory=list)

    def of(self, kind: str) -> Mark | None:
        """The first mark of this kind."""
        return next((mark for mark in self.marks if mark.kind == kind), None)

    def span(self, first: str, last: str) -> tuple[Mark, Mark] | None:
        """The marks between which something lasted, if both were seen."""
        start, end = self.of(first), self.of(last)
        return (start, end) if start and end else None

    def history(self) -> list[Sample]:
        """The samples whose steps are in the final weights: when a job goes back to a checkpoint, what came after it never was."""
        kept: list[Sample] = []
        for sample in self.samples:
            while kept and kept[-1].trained > sample.trained:
                kept.pop()
            kept.append(sample)
        return kept

    def rates(self, *, window_s: float = 1.5) -> tuple[list[Point], list[Point]]:
        """Rows a second, (second, rate): trained, and produced; each over the `window_s` before.

        Counted from the rows themselves, so that a stall is seen as it was and nobody's own average is believed.
        """
        return _rate([(s.at_s, s.trained) for s in self.samples], window_s), _rate(
            [(s.at_s, s.produced) for s in self.samples], window_s
        )

    def save(self, path: Path) -> None:
        """Write everything to `path` as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Timeline:
        """The timeline that `save` wrote."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            samples=[Sample(**item) for item in kept["samples"]],
            marks=[Mark(**item) for item in kept["marks"]],
            frozen=[Sample(**item) for item in kept["frozen"]],
        )


def _rate(counts: Sequence[tuple[float, int]], window_s: float) -> list[Point]:
    points: list[Point] = []
    first = 0
    for at_s, count in counts:
        while at_s - counts[first][0] > window_s:
            first += 1
        begin = counts[max(0, first - 1)]
        if at_s > begin[0]:
            points.append((at_s, max(0.0, (count - begin[1]) / (at_s - begin[0]))))
    return points
