"""Staging: from blocks to the private tensors of a rank's spans, ahead of the step that needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch

from dtrain.data.schema import Schema
from dtrain.data.staging import Staging
from dtrain.policy.slices import RowSpan, parts_of, spans_of
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
        rank: whose rows.
        world_size: of the generation.
        device: where the tensors go.
    """

    def __init__(
        self, schema: Schema, *, num_slices: int, is_exact: bool, rank: int, world_size: int, device: torch.device
    ) -> None:
        self._schema = schema
        self._num_slices = num_slices
        self._is_exact = is_exact
        self._rank = rank
        self._world_size = world_size
        self._device = device
        self._sets: list[list[Staging]] = [[] for _ in range(NUM_SETS)]
        self._next = 0

    def keys(self, pieces: Sequence[tuple[int, int, int]], *, num_rows: int) -> list[int]:
        """The blocks, by id, of which this rank needs rows in a step of `num_rows`."""
        spans = self._spans(num_rows)
        needed = parts_of(pieces, start=spans[0].start, stop=spans[-1].stop) if spans else []
        return list(dict.fromkeys(block for block, _, _ in needed))

    def stage(
        self, pieces: Sequence[tuple[int, int, int]], blocks: Mapping[int, pa.RecordBatch], *, num_rows: int
    ) -> list[SpanBatch]:
        """This rank's spans of a step, as tensors.

        Args:
            pieces: (block id, first row, row behind the last), in the order taken, of the whole step.
            blocks: block id → rows, for at least those that `keys` names.
            num_rows: of the whole step.
        """
        buffers = self._sets[self._next]
        self._next = (self._next + 1) % NUM_SETS
        staged = []
        for index, span in enumerate(self._spans(num_rows)):
            if index == len(buffers):
                buffers.append(Staging(self._schema, span.stop - span.start))
            parts = parts_of(pieces, start=span.start, stop=span.stop)
            columns = buffers[index].fill([(blocks[block], start, stop) for block, start, stop in parts])
            batch = {name: torch.from_numpy(c).to(self._device, non_blocking=True) for name, c in columns.items()}
            staged.append(SpanBatch(span, batch))
        return staged

    def _spans(self, num_rows: int) -> list[RowSpan]:
        return spans_of(
            self._rank,
            world_size=self._world_size,
            num_rows=num_rows,
            num_slices=self._num_slices,
            is_exact=self._is_exact,
        )
