"""Scores of predictions that were made before their rows were trained on, and of the best constant, known only afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """A way to score.

    Args:
        of: predictions and labels → the score.
        constant: labels → the score of who says the same of every row.
    """

    of: Callable[[Numbers, Numbers], float]
    constant: Callable[[Numbers], float]


def accuracy(predicted: Numbers, labels: Numbers) -> float:
    """The share of rows whose class was predicted: [rows, classes], or [rows] probabilities of class 1."""
    classes = predicted.argmax(axis=1) if predicted.ndim == 2 else predicted >= 0.5
    return float((classes == labels).mean())


def auroc(predicted: Numbers, labels: Numbers) -> float:
    """The chance that a row of class 1 was ranked above one of class 0; ties count half (Mann and Whitney's U)."""
    _, inverse, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = labels > 0.5
    num, others = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - num * (num + 1) / 2) / (num * others))


def rmse(predicted: Numbers, labels: Numbers) -> float:
    """The root of the mean squared error, in the label's unit."""
    return float(np.sqrt(np.square(predicted - labels).mean()))


SCORES = {
    "accuracy": Score(accuracy, lambda labels: float(np.unique(labels, return_counts=True)[1].max() / len(labels))),
    "auroc": Score(auroc, lambda _: 0.5),
    "rmse": Score(rmse, lambda labels: float(labels.std())),
}
