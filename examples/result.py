"""What the run of an example came to: the figures of its `result.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one run.

    Args:
        name: of the example.
        rows: that were trained, over how many steps.
        steps: of the job.
        metric: accuracy, auroc or rmse, of each row before it was trained on, over all rows.
        score: dtrain's, on two workers.
        score_loop: of the plain loop over the same rows in the same order.
        score_constant: of the best constant, which is known only afterwards.
        loss: a row, over all rows; loss_loop: of the plain loop.
        compared_steps: after so many steps the weights are compared.
        difference: relative L2, of dtrain's weights from the loop's, there.
        differences: the same at every checkpoint, by its step; rounding grows with the steps.
        is_once: whether the step log names every row once.
        is_equal_to_the_bit: whether a job in `exact` of one slice had the loop's weights there, bit by bit.
        num_kills: workers that were killed on the way; num_recoveries: how often the job went on without one.
        seconds: that it took, from an empty topic to the last comparison.
    """

    name: str
    rows: int
    steps: int
    metric: str
    score: float
    score_loop: float
    score_constant: float
    loss: float
    loss_loop: float
    compared_steps: int
    difference: float
    differences: Mapping[int, float]
    is_once: bool
    is_equal_to_the_bit: bool
    num_kills: int
    num_recoveries: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether it is as promised."""
        return self.is_once and self.is_equal_to_the_bit and self.difference <= TOLERANCE

    def save(self, path: Path) -> None:
        """Write the figures to `path` as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self) | {"holds": self.holds}, indent=2) + "\n", encoding="utf-8")

    def text(self) -> str:
        """The figures for the terminal, a line each."""
        killed = f", {self.num_kills} killed on the way" if self.num_kills else ""
        once = "each row once" if self.is_once else "NOT each row once"
        equal = "equal" if self.is_equal_to_the_bit else "NOT equal"
        lines = {
            "trained": f"{self.rows:,} rows in {self.steps:,} steps by two workers{killed}; {once}",
            self.metric: f"{self.score:.4f}   plain loop {self.score_loop:.4f}   constant {self.score_constant:.4f}",
            "loss a row": f"{self.loss:.4f}   plain loop {self.loss_loop:.4f}",
            "weights": f"{self.difference:.1e} from the plain loop's after {self.compared_steps} steps, {self._last:.1e} at the end",
            "exact": f"a job of one slice is {equal} to the plain loop to the bit after {self.compared_steps} steps",
            "time": f"{self.seconds:.0f} s",
        }
        return "\n".join([f"[bold]{self.name}[/bold]", *(f"  [dim]{name:<12}[/dim]{line}" for name, line in lines.items())])

    @property
    def _last(self) -> float:
        return self.differences[max(self.differences)]
