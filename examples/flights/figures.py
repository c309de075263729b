"""What the demo found out: the figures of `report.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Check:
    """A claim, how it was checked, and what came out."""

    claim: str
    how: str
    result: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The outcome of one run.

    Args:
        produced: rows that the broker acknowledged.
        trained: rows that the step log names, each as often as it names it.
        lost: rows of the topic that the log does not name.
        doubled: rows that it names more than once.
        auroc: of each row's score before it was trained on, over all rows.
        auroc_constant: the same for a model that always says the same: 0.5 by definition.
        auroc_frozen: the same for the same model that stops learning after January.
        recovery_s: from noticing the killed trainer to the next applied step.
        replay: `equal`, or where the replayed weights first differ.
        loss, loss_frozen: mean log loss a row. loss_constant: of the best constant, known only afterwards.
        late_share: share of late flights.
        month_starts: the row with which each month begins.
        seconds: how long the demo took.
        checks: the claims of the report.
        setting: name → value, what a reader needs to judge or repeat the run: versions, machine, job.
    """

    produced: int
    trained: int
    lost: int
    doubled: int
    auroc: float
    auroc_constant: float
    auroc_frozen: float
    recovery_s: float
    replay: str
    loss: float
    loss_frozen: float
    loss_constant: float
    late_share: float
    month_starts: Sequence[int]
    seconds: float
    checks: Sequence[Check]
    setting: dict[str, str]

    @property
    def all_hold(self) -> bool:
        """Whether every check came out as claimed."""
        return all(check.holds for check in self.checks)

    def save(self, path: Path) -> None:
        """Write the figures to `path` as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Figures:
        """The figures that `save` wrote."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        return cls(**kept | {"checks": [Check(**check) for check in kept["checks"]]})
