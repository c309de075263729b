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
        self._rows = (-1, torch.zeros(()), torch.zeros(()))

    def sums(self, outputs: Any, batch: Batch, *, num_rows: int, loss: Tensor) -> Tensor:
        """Sums over the `num_rows` rows of a batch, float32 [size]; `loss` is that of the losses. No gradient flows.

        Raises:
            TaskError: `predict` gives something that cannot be compared with the label.
        """
        if self._rows[0] != num_rows:
            rows, none = torch.tensor([num_rows, 0.0], dtype=torch.float32, device=loss.device)
            self._rows = (num_rows, rows, none)
        _, rows, none = self._rows
        if not self.metrics:
            return torch.stack((rows, loss.to(torch.float32), none))
        with torch.no_grad():
            predicted, label = self._compared(outputs, batch)
            correct = _is_correct(predicted, label).sum(dtype=torch.float32)
            sums = torch.stack((rows, loss.to(torch.float32), correct))
            return torch.cat((sums, _histograms(predicted, label))) if "auroc" in self.metrics else sums

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
        if label.dim() != 1:
            raise TaskError(
                f"{name}.label is a column of shape {list(label.shape[1:])} a row, which cannot be scored",
                fix="let it be one number a row, or take the metrics out of `evaluate.metrics`",
            )
        is_wide = predicted.dim() == 2
        if (
            predicted.shape[:1] != label.shape
            or predicted.dim() > 2
            or (is_wide and ("auroc" in self.metrics or predicted.shape[1] < 2))
        ):
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
        name: of these scores among a replica's tensors.
    """

    def __init__(self, size: int, *, window_rows: int, name: str = "scores") -> None:
        self._name = name
        self._bucket_rows = max(1, window_rows // _NUM_BUCKETS)
        self.total = torch.zeros(size, dtype=torch.float64)
        self.buckets = torch.zeros(_NUM_BUCKETS, size, dtype=torch.float64)  # newest first
        self._newest, self._newest_rows = self.buckets[0], 0.0

    def add(self, sums: Tensor, *, num_rows: int) -> None:
        """A step's sums [size] over all ranks, of `num_rows` rows, count from now on."""
        added = sums.cpu()
        self.total.add_(added)
        if self._newest_rows >= self._bucket_rows:
            self.buckets = torch.cat([torch.zeros_like(self.buckets[:1]), self.buckets[:-1]])
            self._newest, self._newest_rows = self.buckets[0], 0.0
        self._newest.add_(added)
        self._newest_rows += num_rows

    def window(self) -> Tensor:
        """Sums [size] over the window."""
        return self.buckets.sum(dim=0)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {f"{self._name}/total": self.total, f"{self._name}/buckets": self.buckets}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave; scores begin anew when the job's metrics are others than then."""
        if tensors[f"{self._name}/total"].shape == self.total.shape:
            self.total = tensors[f"{self._name}/total"].clone()
            self.buckets = tensors[f"{self._name}/buckets"].clone()
            self._newest, self._newest_rows = self.buckets[0], float(self.buckets[0, 0])


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
