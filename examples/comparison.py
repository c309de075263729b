"""A job's weights beside those of a plain loop over the same rows in the same order, as the job's step log tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dtrain.spec.job import JobSpec
from examples import loop
from examples.example import Example
from examples.messages import Message
from examples.scores import SCORES
from examples.steplog import checkpoints, places, steps, weights


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out.

    Args:
        differences: at each checkpoint, by its step: relative L2, of the job's weights from the loop's.
        is_equal: whether, at the last one, every bit of them is the same.
        is_once: whether the step log names every row once.
        trained: what the loop came to.
        labels: of the rows, in the order in which they were trained.
    """

    differences: Mapping[int, float]
    is_equal: bool
    is_once: bool
    trained: loop.Trained
    labels: npt.NDArray[np.float64]

    def score(self, metric: str) -> float:
        """The loop's, over all rows."""
        return SCORES[metric].of(torch.cat(self.trained.predicted).double().numpy(), self.labels)

    def constant(self, metric: str) -> float:
        """The best constant's, over all rows."""
        return SCORES[metric].constant(self.labels)

    @property
    def loss(self) -> float:
        """The loop's a row, over all rows."""
        return float(torch.cat(self.trained.losses).double().mean())


def compare(example: Example, job: JobSpec, folder: str, messages: Sequence[Message]) -> Comparison:
    """Train in a plain loop what a job has trained, and compare the weights at each of its checkpoints.

    Args:
        example: gives the task, and the rows.
        job: gives the task's parameters.
        folder: of the job's checkpoints, from the first of which the loop has its initial weights.
        messages: all that was in the job's topic.
    """
    kept = checkpoints(Path(folder))
    last = max(kept)
    log = steps(kept[last], places(messages))
    ours = loop.train(example.task, job.params, example.columns, log, begin=weights(kept[0]), keep=kept.keys())
    rows = torch.cat(ours.rows)
    times = np.bincount(rows.numpy(), minlength=sum(message.num_rows for message in messages))
    return Comparison(
        differences={step: loop.difference(weights(kept[step]), ours.weights[step]) for step in sorted(kept) if step},
        is_equal=loop.is_equal(weights(kept[last]), ours.weights[last]),
        is_once=bool((times == 1).all()),
        trained=ours,
        labels=example.columns[example.task.label][rows].double().numpy(),
    )
