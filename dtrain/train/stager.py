"""Staging: from blocks to the private tensors of a rank's spans, ahead of the step that needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch

from dtrain.data.permutation import order_of
from dtrain.data.schema import Schema
from dtrain.data.staging import Staging
from dtrain.policy.cutting import Piece
from dtrain.policy.slices import RowSpan, parts_of, spans_of
from dtrain.steplog.spans import Part
from dtrain.train.gradient import SpanBatch

NUM_SETS = 3
"""Steps that may be staged at a time: one that trains, one that waits, one that is being filled."""


class Stager:
    """Copies a rank's rows of a step into buffers of its own, which are used again `NUM_SETS` steps later.

    Threads: one stages; the step that trains holds what was staged until the next one is taken.

    Args:
        schema: the task's columns.
        num_slices: of a step.
        is_exact: slice by slice, each in aligned buffers of its own.
        slices: those of this rank.
        device: where the tensors go.
    """

    def __init__(self, schema: Schema, *, num_slices: int, is_exact: bool, slices: range, device: torch.device) -> None:
        self._schema = schema
        self._num_slices = num_slices
        self._is_exact = is_exact
        self._slices = slices
        self._device = device
        self._sets: list[list[Staging]] = [[] for _ in range(NUM_SETS)]
        self._next = 0
        self._span_rows = Staging(schema, 1)
        self._span: Mapping[str, np.ndarray] = {}
        self._opened: Part | None = None  # the first part of the span whose rows these are

    def keys(
        self, pieces: Sequence[Piece], *, num_rows: int, held_out: Sequence[Piece] = (), part: Part | None = None
    ) -> list[int]:
        """The blocks, by id, of which this rank needs rows in a step of `num_rows`; of part of a span, all that the span is of."""
        if part is not None and self._slices:
            return list(dict.fromkeys(block for block, _, _ in (*pieces, *held_out)))
        needed = (found for _, parts, _ in self._parts(pieces, held_out, num_rows) for found in parts)
        return list(dict.fromkeys(block for block, _, _ in needed))

    def stage(
        self,
        pieces: Sequence[Piece],
        blocks: Mapping[int, pa.RecordBatch],
        *,
        num_rows: int,
        held_out: Sequence[Piece] = (),
        part: Part | None = None,
    ) -> list[SpanBatch]:
        """This rank's spans of a step, as tensors.

        Args:
            pieces: (block id, first row, row behind the last), in the order taken, of the whole step.
            blocks: block id → rows, for at least those that `keys` names.
            num_rows: of the whole step, trained ones.
            held_out: as `pieces`, the rows that are scored and not trained; shared out over slices in the same way.
            part: which the step is of a span, where rows are shuffled; `pieces` are then those of the span.
        """
        buffers = self._sets[self._next]
        self._next = (self._next + 1) % NUM_SETS
        staged = []
        for index, (span, parts, is_held_out) in enumerate(self._parts(pieces if part is None else (), held_out, num_rows)):
            if index == len(buffers):
                buffers.append(Staging(self._schema, span.stop - span.start))
            if part is not None and not is_held_out:
                rows = order_of(part)[part.start + span.start : part.start + span.stop]
                columns = buffers[index].gather(self._span_of(part, pieces, blocks), rows)
            else:
                columns = buffers[index].fill([(blocks[block], start, stop) for block, start, stop in parts])
            batch = {name: torch.from_numpy(c).to(self._device, non_blocking=True) for name, c in columns.items()}
            staged.append(SpanBatch(span, batch, is_held_out))
        return staged

    def _span_of(self, part: Part, pieces: Sequence[Piece], blocks: Mapping[int, pa.RecordBatch]) -> Mapping[str, np.ndarray]:
        """The rows of the whole span as they came, which its first part here has copied.

        Why: a part has a few rows of every block, and each look into a block costs as much as copying many rows.
        """
        opened = replace(part, start=0)
        if opened != self._opened:
            self._span = self._span_rows.fill([(blocks[block], start, stop) for block, start, stop in pieces])
            self._opened = opened
        return self._span

    def _parts(
        self, pieces: Sequence[Piece], held_out: Sequence[Piece], num_rows: int
    ) -> Iterator[tuple[RowSpan, list[Piece], bool]]:
        """This rank's spans, the parts of blocks that are their rows, and whether these are held out."""
        for span in self._spans(num_rows):
            yield span, parts_of(pieces, start=span.start, stop=span.stop), False
        for span in self._spans(sum(stop - start for _, start, stop in held_out)):
            yield span, parts_of(held_out, start=span.start, stop=span.stop), True

    def _spans(self, num_rows: int) -> list[RowSpan]:
        return spans_of(self._slices, num_rows=num_rows, num_slices=self._num_slices, is_exact=self._is_exact)
