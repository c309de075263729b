"""Staging: rows copied once, in order, into aligned arrays of one's own."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.arrow_messages import read_arrow
from dtrain.data.decode import decode
from dtrain.data.schema import Schema
from dtrain.data.staging import ALIGNMENT, Staging, aligned_empty
from dtrain.steplog.positions import Partition, Position
from tests.support.messages import arrow, records

SCHEMA = Schema({"id": "int64", "x": "float32[2,3]", "b": "bool", "bs": "bool[3]", "h": "float16", "u": "uint8"})


def batch(first: int, num_rows: int) -> pa.RecordBatch:
    """Rows whose every value tells which row they are."""
    ids = np.arange(first, first + num_rows)
    table = {
        "id": ids,
        "x": pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(ids, 6).astype("f4") + np.tile(np.arange(6), num_rows)), 6),
        "b": ids % 2 == 1,
        "bs": pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(ids % 3 == 0, 3)), 3),
        "h": ids.astype("f2"),
        "u": (ids % 256).astype("u1"),
    }
    found = decode(
        records([arrow(table)]), partition=Partition("t", 0), start=Position(0), end=Position(1), schema=SCHEMA, read=read_arrow
    )
    assert not found.meta.rejects
    return found.batch


BATCHES = [batch(0, 50), batch(50, 7).slice(2), batch(100, 64).slice(3, 33)]


def check(columns: dict[str, np.ndarray], ids: list[int]) -> None:
    rows = np.array(ids, dtype="i8")
    assert list(columns) == ["id", "x", "b", "bs", "h", "u"]
    assert np.array_equal(columns["id"], rows)
    assert np.array_equal(columns["x"], (rows[:, None] + np.arange(6)).astype("f4").reshape(-1, 2, 3))
    assert np.array_equal(columns["b"], rows % 2 == 1)
    assert np.array_equal(columns["bs"], np.repeat(rows % 3 == 0, 3).reshape(-1, 3))
    assert np.array_equal(columns["h"], rows.astype("f2"))
    for field, column in zip(SCHEMA.tensors, columns.values(), strict=True):
        assert column.dtype == field.dtype
        assert column.flags.c_contiguous
        assert column.flags.writeable
        assert column.ctypes.data % ALIGNMENT == 0


@given(
    st.lists(
        st.sampled_from(range(3)).flatmap(
            lambda i: st.tuples(st.just(i), st.integers(0, BATCHES[i].num_rows), st.integers(0, BATCHES[i].num_rows))
        ),
        max_size=8,
    ),
    st.integers(0, 100),
)
def test_fill_with_any_parts_holds_their_rows_in_order(parts: list[tuple[int, int, int]], capacity_rows: int) -> None:
    taken = [(BATCHES[i], min(a, b), max(a, b)) for i, a, b in parts]
    ids = [row for piece, start, stop in taken for row in piece["id"].to_pylist()[start:stop]]
    check(Staging(SCHEMA, capacity_rows).fill(taken), ids)


@given(st.lists(st.integers(0, sum(piece.num_rows for piece in BATCHES) - 1)), st.integers(0, 100))
def test_gather_any_rows_holds_them_in_order(rows: list[int], capacity_rows: int) -> None:
    source = Staging(SCHEMA, 1).fill([(piece, 0, piece.num_rows) for piece in BATCHES])
    ids = source["id"].tolist()
    check(Staging(SCHEMA, capacity_rows).gather(source, np.array(rows, np.int64)), [ids[row] for row in rows])


def test_fill_again_with_fewer_rows_uses_the_same_memory() -> None:
    staging = Staging(SCHEMA, 10)
    first = staging.fill([(BATCHES[0], 0, 10)])
    second = staging.fill([(BATCHES[0], 20, 25)])
    assert all(np.shares_memory(first[name], second[name]) for name in first)
    check(second, list(range(20, 25)))


def test_fill_with_more_rows_grows_and_leaves_the_former_arrays_alone() -> None:
    staging = Staging(SCHEMA, 5)
    first = staging.fill([(BATCHES[0], 0, 5)])
    check(staging.fill([(BATCHES[0], 10, 30)]), list(range(10, 30)))
    check(first, list(range(5)))


def test_fill_hands_out_memory_that_may_be_changed_without_changing_the_block() -> None:
    columns = Staging(SCHEMA, 5).fill([(BATCHES[0], 0, 5)])
    columns["id"][:] = -1
    assert BATCHES[0]["id"].to_pylist()[:5] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(0,), (1,), (7, 3), (1000, 2, 2)])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16", "float32", "int64"])
def test_aligned_empty_begins_at_a_boundary(shape: tuple[int, ...], dtype: str) -> None:
    arrays = [aligned_empty(shape, dtype) for _ in range(10)]
    assert all(array.ctypes.data % ALIGNMENT == 0 or array.size == 0 for array in arrays)
    assert all((array.shape, array.dtype) == (shape, np.dtype(dtype)) for array in arrays)
