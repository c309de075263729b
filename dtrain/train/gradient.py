"""The gradient of a rank's rows, written into the flat buffer: the part of a step in which user code runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dtrain.data.usercode import UserCode
from dtrain.errors import TaskError
from dtrain.policy.slices import RowSpan
from dtrain.spec.job import TrainSpec
from dtrain.train.layout import FlatBuffer, FlatLayout, FlatRow
from dtrain.train.numerics import seed_everything, seed_of
from dtrain.train.scores import Scorer
from dtrain.train.task import Batch, Task

_CHECK_EVERY = 16
"""Steps from one look at the model's members to the next: it takes as long as a small step's smaller parts."""


@dataclass(frozen=True, slots=True)
class SpanBatch:
    """The rows of a span of a step, as private tensors; a span of held-out rows counts among these alone."""

    span: RowSpan
    batch: Batch
    is_held_out: bool = False


class GradientWriter:
    """Computes spans of a step. It changes nothing of the replica: module buffers are put back after each forward.

    Args:
        task: the user's.
        model: the replica's module, in training mode.
        layout: of the flat buffer.
        scorer: for prequential scores.
        train: the job's arithmetic. A mean is over the step's rows, those of all ranks (invariant 3).
    """

    def __init__(self, task: Task, model: nn.Module, *, layout: FlatLayout, scorer: Scorer, train: TrainSpec) -> None:
        self._task = task
        self._model = model
        self._layout = layout
        self._scorer = scorer
        self._train = train
        self._weight = task.features.weight
        self._user_code = UserCode(type(task).__name__)
        self._share: tuple[int, Tensor] = (0, torch.ones(()))

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
        if sum(not item.is_held_out for item in batches) < len(flat.rows):
            flat.tensor.zero_()
        for row in flat.rows if self._layout.has_held_out else ():
            row.held_out.zero_()
        for item in batches:
            row = flat.rows[item.span.first_slice if len(flat.rows) > 1 else 0]
            seed_everything(seed_of(self._train.seed, step, item.span.first_slice))
            if item.is_held_out:
                self._score_span(row, item.batch)
            else:
                self._write_span(row, item.batch, num_rows=num_rows)
        if step % _CHECK_EVERY == 1:
            self._layout.check()

    def _write_span(self, row: FlatRow, batch: Batch, *, num_rows: int) -> None:
        for parameter in self._layout.parameters:
            parameter.grad = None
        before = [buffer.clone() for buffer in self._layout.buffers]
        try:
            for index, part in enumerate(_parts(batch, self._train.micro_batch_rows)):
                self._add_part(row, part, before, num_rows=num_rows, is_first=index == 0)
        except TaskError:
            for slot, old in zip(self._layout.slots, before, strict=True):
                slot.put_back(old)
            raise
        self._layout.write_gradients(row)

    def _add_part(self, row: FlatRow, batch: Batch, before: Sequence[Tensor], *, num_rows: int, is_first: bool) -> None:
        """One forward and backward: gradients grow, scores and changes of module buffers are in `row`, added unless it is the first."""
        with self._user_code:
            outputs = self._task.forward(self._model, batch)
            losses = self._weighted(self._task.loss(outputs, batch), batch)
            loss = losses.sum()
            sums = self._scorer.sums(outputs, batch, num_rows=losses.shape[0], loss=loss.detach())
            loss.backward(self._loss_gradient(loss, num_rows))  # type: ignore[no-untyped-call]
        row.scores.copy_(sums) if is_first else row.scores.add_(sums)
        if not self._layout.slots:
            return
        share = losses.shape[0] / num_rows
        with torch.no_grad():
            for sum_, slot, old in zip(row.changes, self._layout.slots, before, strict=True):
                weight = 1.0 if slot.is_summed else share
                change = _change(slot.now(), old).to(sum_.dtype) * weight  # waits for the apply block
                sum_.copy_(change) if is_first else sum_.add_(change)
                slot.put_back(old)

    def _score_span(self, row: FlatRow, batch: Batch) -> None:
        """The scores of rows that are held out are in `row`; nothing else has changed: buffers and modes are as before."""
        before = [buffer.clone() for buffer in self._layout.buffers]
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            with torch.no_grad(), self._user_code:
                for part in _parts(batch, self._train.micro_batch_rows):
                    outputs = self._task.forward(self._model, part)
                    losses = self._weighted(self._task.loss(outputs, part), part)
                    row.held_out.add_(self._scorer.sums(outputs, part, num_rows=losses.shape[0], loss=losses.sum()))
        finally:
            for module, mode in modes:
                module.training = mode
            for slot, old in zip(self._layout.slots, before, strict=True):
                slot.put_back(old)

    def _loss_gradient(self, loss: Tensor, num_rows: int) -> Tensor:
        """What a row's loss counts in the step's, as `loss` is: kept, because steps are of the same size mostly."""
        size = num_rows if self._train.reduction == "mean" else 1
        if self._share[0] != size or self._share[1].dtype != loss.dtype:
            self._share = (size, torch.ones_like(loss, requires_grad=False) / size)
        return self._share[1]

    def _weighted(self, losses: object, batch: Batch) -> Tensor:
        """The losses, each times its row's weight where the task has such."""
        checked = self._checked(losses, batch)
        return checked * batch[self._weight].to(checked.dtype) if self._weight else checked

    def _checked(self, losses: object, batch: Batch) -> Tensor:
        expected = next(iter(batch.values())).shape[0]
        if not isinstance(losses, Tensor) or losses.shape != (expected,):
            got = f"shape {list(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
            raise TaskError(
                f"{type(self._task).__name__}.loss gave {got} for {expected} rows",
                fix='return one loss a row, [rows], as with reduction="none"; dtrain takes the mean over all workers\' rows',
            )
        return losses


def _parts(batch: Batch, max_rows: int) -> Iterator[Batch]:
    """The batch in parts of at most `max_rows`; whole for 0."""
    num_rows = next(iter(batch.values())).shape[0]
    if not 0 < max_rows < num_rows:
        yield batch
        return
    for start in range(0, num_rows, max_rows):
        yield {name: column[start : start + max_rows] for name, column in batch.items()}


def _change(now: Tensor, old: Tensor) -> Tensor:
    """What a forward added to a buffer; nothing where it is as before, infinities included. A bool that flipped is 1."""
    if old.dtype == torch.bool:
        return now != old
    return torch.where(now == old, torch.zeros_like(old), now - old)
