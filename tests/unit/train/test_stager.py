"""Stagers of all ranks together copy each row of a step once, whatever the order."""

from __future__ import annotations

import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.permutation import order_of
from dtrain.data.schema import Schema
from dtrain.policy.slices import slices_of
from dtrain.steplog.spans import Part
from dtrain.train.stager import Stager

SCHEMA = Schema({"id": "int64"})
SHARES = st.sampled_from([(4,), (2, 2), (1, 0, 3), (0, 4), (1, 1, 1, 1)])


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.lists(st.integers(1, 4), max_size=3),
    SHARES,
    st.booleans(),
    st.data(),
)
def test_stage_a_part_of_a_span_gives_its_rows_in_the_drawn_order_and_held_out_ones_as_they_come(
    sizes: list[int], held_out_sizes: list[int], shares: tuple[int, ...], is_exact: bool, data: st.DataObject
) -> None:
    blocks, pieces, held_out, ids = {}, [], [], []
    for number, size in enumerate(sizes):
        first = 100 * number
        blocks[number] = pa.RecordBatch.from_arrays([pa.array(range(first, first + 50), pa.int64())], schema=SCHEMA.arrow)
        pieces.append((number, 3, 3 + size))
        ids += range(first + 3, first + 3 + size)
    for number, size in enumerate(held_out_sizes[: len(sizes)]):
        held_out.append((number, 30, 30 + size))
    start = data.draw(st.integers(0, len(ids) - 1))
    num_rows = data.draw(st.integers(1, len(ids) - start))
    part = Part(seed=1, opened=2, span_rows=len(ids), start=start)
    trained, scored = [], []
    for rank in range(len(shares)):
        mine = slices_of(rank, shares=shares)
        stager = Stager(SCHEMA, num_slices=4, is_exact=is_exact, slices=mine, device=torch.device("cpu"))
        keys = stager.keys(pieces, num_rows=num_rows, held_out=held_out, part=part)
        assert bool(keys) == bool(mine)
        needed = {key: blocks[key] for key in keys}
        for batch in stager.stage(pieces, needed, num_rows=num_rows, held_out=held_out, part=part):
            (scored if batch.is_held_out else trained).extend(batch.batch["id"].tolist())
    assert trained == [ids[row] for row in order_of(part)[start : start + num_rows]]
    assert scored == [100 * number + row for number, first, stop in held_out for row in range(first, stop)]
