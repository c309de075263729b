"""A decoder as a user might write it: 16 bytes a row, `y` as an integer and `x` as two floats."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dtrain.data.block import RawRecord

ROW = np.dtype([("y", "<i8"), ("x", "<f4", 2)])
NOTHING = -(2**63)


def decode(records: list[RawRecord]) -> list[pa.RecordBatch]:
    """A batch for each record."""
    return [_batch(record.value) for record in records]


def decode_one_row_each(records: list[RawRecord]) -> pa.RecordBatch:
    """One batch for all of them."""
    return _batch(b"".join(record.value or b"" for record in records))


def decode_never(records: list[RawRecord]) -> pa.RecordBatch:
    raise ValueError("x" * 1000)


def decode_to_nothing(records: list[RawRecord]) -> object:
    return 7


def decode_to_a_dictionary(records: list[RawRecord]) -> object:
    return [{"y": 1} for _ in records]


def decode_by_key(records: list[RawRecord]) -> list[pa.RecordBatch]:
    """Rows of other columns for records with a key."""
    return [_named(["x", "y"] if record.key is None else ["more", "x", "y"]) for record in records]


def _named(names: list[str]) -> pa.RecordBatch:
    columns = {"more": pa.array([0]), "x": pa.array([[1.0, 2.0]]), "y": pa.array([1])}
    return pa.RecordBatch.from_arrays([columns[name] for name in names], names=names)


def _batch(value: bytes | None) -> pa.RecordBatch:
    if value is None:
        raise ValueError("nothing to decode")
    rows = np.frombuffer(value, ROW)
    xs = pa.FixedSizeListArray.from_arrays(pa.array(rows["x"].ravel()), 2)
    return pa.RecordBatch.from_arrays([xs, pa.array(rows["y"], mask=rows["y"] == NOTHING)], names=["x", "y"])
