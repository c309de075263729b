"""The gradient of a rank's rows, written into the flat buffer: the part of a step in which user code runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtrain.errors import DtrainError, TaskError
from dtrain.policy.slices import RowSpan
from dtrain.train.layout import FlatBuffer, FlatLayout, FlatRow
from dtrain.train.numerics import seed_everything, seed_of
from dtrain.train.scores import Scorer
from dtrain.train.task import Batch, Task


@dataclass(frozen=True, slots=True)
class SpanBatch:
    """The rows of a span of a step, as private tensors."""

    span: RowSpan
    batch: Batch


class GradientWriter:
    """Computes spans of a step. It changes nothing of the replica: module buffers are put back after each forward.

    Args:
        task: the user's.
        model: the replica's module, in training mode.
        layout: of the flat buffer.
        scorer: for prequential scores.
        seed: the job's.
        is_mean: divide by the step's rows, those of all ranks (invariant 3).
    """

    def __init__(self, task: Task, model: nn.Module, *, layout: FlatLayout, scorer: Scorer, seed: int, is_mean: bool) -> None:
        self._task = task
        self._model = model
        self._layout = layout
        self._scorer = scorer
        self._seed = seed
        self._is_mean = is_mean

    def write(self, flat: FlatBuffer, batches: Sequence[SpanBatch], *, step: int, num_rows: int) -> None:
        """Fill `flat` (one row, or one a slice) with this rank's sums; rows of other ranks' slices are zero.

        Args:
            flat: overwritten.
            batches: this rank's spans; none for an idle rank, which runs no user code.
            step: the data step's number, for seeds.
            num_rows: rows of all ranks in the step.

        Raises:
            TaskError: the user's code raised, or a loss is not one number a row.
        """
        if len(batches) < len(flat.rows):
            flat.tensor.zero_()
        for item in batches:
            row = flat.rows[item.span.first_slice if len(flat.rows) > 1 else 0]
            seed_everything(seed_of(self._seed, step, item.span.first_slice))
            self._write_span(row, item.batch, num_rows=num_rows)

    def _write_span(self, row: FlatRow, batch: Batch, *, num_rows: int) -> None:
        for parameter in self._layout.parameters:
            parameter.grad = None
        before = [buffer.clone() for buffer in self._layout.buffers]
        try:
            outputs = self._task.forward(self._model, batch)
            losses = self._checked(self._task.loss(outputs, batch), batch)
            row.scores.copy_(self._scorer.sums(outputs, batch, losses))
            (losses.sum() / num_rows if self._is_mean else losses.sum()).backward()  # type: ignore[no-untyped-call]
        except DtrainError:
            raise
        except Exception as error:  # user code may raise anything
            raise TaskError(f"{type(self._task).__name__} raised {type(error).__name__}: {error}") from error
        self._layout.write_gradients(row)
        self._take_back_buffers(row, before, share=losses.shape[0] / num_rows)

    def _take_back_buffers(self, row: FlatRow, before: Sequence[Tensor], *, share: float) -> None:
        """Put module buffers back; their change, weighted by this span's share of the rows, waits for the apply block."""
        with torch.no_grad():
            for change, slot, old in zip(row.changes, self._layout.slots, before, strict=True):
                change.copy_(_change(slot.now(), old)).mul_(share)
                slot.put_back(old)

    def _checked(self, losses: object, batch: Batch) -> Tensor:
        expected = next(iter(batch.values())).shape[0]
        if not isinstance(losses, Tensor) or losses.shape != (expected,):
            got = f"shape {list(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise TaskError(
                f"{type(self._task).__name__}.loss gave {got} for {expected} rows",
                fix='return one loss a row, [rows], as with reduction="none"; dtrain takes the mean over all workers\' rows',
            )
        return losses


def _change(now: Tensor, old: Tensor) -> Tensor:
    """What a forward added to a buffer; nothing where it is as before, infinities included. A bool that flipped is 1."""
    if old.dtype == torch.bool:
        return now != old
    return torch.where(now == old, torch.zeros_like(old), now - old)
