"""Prequential scores: every row is scored by the training forward, before it is trained on.

Scores are sums (rows, loss, correct rows, histograms of predicted probability by class), so they merge exactly over slices, ranks
and steps (Gama, Sebastião, Rodrigues 2013, "On evaluating stream learning algorithms"). AUROC is that of the histograms, whose bins
are 1/512 wide, ties counting half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dtrain.errors import TaskError
from dtrain.train.task import Batch, Task

NUM_BINS = 512
_NUM_BUCKETS = 20  # the window moves by 1/20 of its rows


class Scorer:
    """What a step adds to the scores: a vector of sums [size].

    The first two are always rows and summed loss; then correct rows; then, for AUROC, rows by bin of class 1 and of class 0.
    """

    def __init__(self, metrics: Sequence[str], *, task: Task) -> None:
        if metrics and not task.label:
            raise TaskError(
                f"{type(task).__name__} has no `label`, so {', '.join(metrics)} cannot be scored",
                fix="set `label` to the column that holds the truth, or take the metrics out of `evaluate.metrics`",
            )
        self.metrics = tuple(metrics)
        self._task = task
        self.size = 3 + (2 * NUM_BINS if "auroc" in metrics else 0)

    def sums(self, outputs: Any, batch: Batch, losses: Tensor) -> Tensor:
        """Sums over the rows of a batch, float32 [size]; no gradient flows.

        Raises:
            TaskError: `predict` gives something that cannot be compared with the label.
        """
        sums = torch.zeros(self.size, dtype=torch.float32, device=losses.device)
        sums[0] = losses.shape[0]
        sums[1] = losses.detach().sum()
        if not self.metrics:
            return sums
        with torch.no_grad():
            predicted, label = self._compared(outputs, batch)
            sums[2] = _is_correct(predicted, label).sum()
            if "auroc" in self.metrics:
                sums[3:] = _histograms(predicted, label)
        return sums

    def values(self, sums: Tensor) -> dict[str, float]:
        """Metric name → value for sums [size]; those without rows are left out."""
        values: dict[str, float] = {}
        if sums[0] > 0:
            if "accuracy" in self.metrics:
                values["accuracy"] = float(sums[2] / sums[0])
            if "auroc" in self.metrics and (area := auroc(sums[3:])) is not None:
                values["auroc"] = area
        return values

    def _compared(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        predicted = self._task.predict(outputs, batch)
        label = batch[self._task.label]
        name = type(self._task).__name__
        if predicted is None:
            raise TaskError(
                f"{name}.predict gives nothing, so {', '.join(self.metrics)} cannot be scored", fix="return probabilities"
            )
        if predicted.shape[:1] != label.shape[:1] or predicted.dim() > 2 or (predicted.dim() == 2 and "auroc" in self.metrics):
            raise TaskError(
                f"{name}.predict gave shape {list(predicted.shape)} for {label.shape[0]} rows",
                fix="return [rows] probabilities of class 1, or [rows, classes] for accuracy alone",
            )
        return predicted, label


class ScoreBoard:
    """Scores over the whole job and over a moving window; part of the replica, so that a resumed job goes on with them.

    Args:
        size: of a step's sums.
        window_rows: rows that the window spans, to within 1/20.
    """

    def __init__(self, size: int, *, window_rows: int) -> None:
        self._bucket_rows = max(1, window_rows // _NUM_BUCKETS)
        self.total = torch.zeros(size, dtype=torch.float64)
        self.buckets = torch.zeros(_NUM_BUCKETS, size, dtype=torch.float64)  # newest first
        self._newest = self.buckets[0]

    def add(self, sums: Tensor) -> None:
        """A step's sums [size] over all ranks count from now on."""
        added = sums.to(device="cpu", dtype=torch.float64)
        self.total += added
        if float(self._newest[0]) >= self._bucket_rows:
            self.buckets = torch.cat([torch.zeros_like(self.buckets[:1]), self.buckets[:-1]])
            self._newest = self.buckets[0]
        self._newest += added

    def window(self) -> Tensor:
        """Sums [size] over the window."""
        return self.buckets.sum(dim=0)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"scores/total": self.total, "scores/buckets": self.buckets}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave; scores begin anew when the job's metrics are others than then."""
        if tensors["scores/total"].shape == self.total.shape:
            self.total = tensors["scores/total"].clone()
            self.buckets = tensors["scores/buckets"].clone()
            self._newest = self.buckets[0]


def auroc(histograms: Tensor) -> float | None:
    """The area under the ROC curve of [2 * bins]: rows by bin of class 1, then of class 0; None when a class has no rows."""
    positive, negative = histograms.to(torch.float64).view(2, -1)
    num_pairs = float(positive.sum() * negative.sum())
    if num_pairs == 0:
        return None
    below = negative.cumsum(0) - negative
    return float((positive * (below + negative / 2)).sum()) / num_pairs


def _is_correct(predicted: Tensor, label: Tensor) -> Tensor:
    return (predicted.argmax(dim=1) if predicted.dim() == 2 else (predicted >= 0.5)) == label.to(torch.int64)


def _histograms(predicted: Tensor, label: Tensor) -> Tensor:
    bins = (predicted * NUM_BINS).to(torch.int64).clamp_(0, NUM_BINS - 1)
    bins = torch.where(label > 0.5, bins, bins + NUM_BINS)
    return torch.bincount(bins, minlength=2 * NUM_BINS).to(torch.float32)
