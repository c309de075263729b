"""Staging: rows of blocks copied once into private arrays that tensors look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dtrain.data.schema import Field, Schema

ALIGNMENT = 64
"""Bytes: where every array begins, for the same arithmetic wherever the rows came from (gradient bits change with it)."""


class Staging:
    """Arrays of one's own for the rows of a step, used again and again.

    Why: user code may change its tensors in place, and those that look at blocks in the object store are everybody's.

    Args:
        schema: the columns of the blocks.
        capacity_rows: rows that fit before the arrays are made anew.
    """

    def __init__(self, schema: Schema, capacity_rows: int) -> None:
        self._schema = schema
        self._capacity_rows = max(1, capacity_rows)
        self._columns = self._allocate()

    def fill(self, parts: Sequence[tuple[pa.RecordBatch, int, int]]) -> dict[str, np.ndarray]:
        """Copy rows [start, stop) of each part, in order, with one copy a part and column.

        Returns:
            Name → array [rows, *shape], which begins at a 64-byte boundary and holds until the next call.
        """
        num_rows = sum(stop - start for _, start, stop in parts)
        if num_rows > self._capacity_rows:
            self._capacity_rows = max(num_rows, 2 * self._capacity_rows)
            self._columns = self._allocate()
        at = 0
        for batch, start, stop in parts:
            for field, column in zip(self._schema.fields, self._columns, strict=True):
                column[at : at + stop - start] = _rows(batch.column(field.name).slice(start, stop - start), field)
            at += stop - start
        return {field.name: column[:num_rows] for field, column in zip(self._schema.fields, self._columns, strict=True)}

    def _allocate(self) -> list[np.ndarray]:
        return [aligned_empty((self._capacity_rows, *field.shape), field.dtype) for field in self._schema.fields]


def aligned_empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array without values that begins at a 64-byte boundary."""
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


def _rows(column: pa.Array, field: Field) -> np.ndarray:
    """The column as an array [rows, *shape] that looks at Arrow's memory; booleans, which are bits there, unpacked."""
    # `values` is the whole array's; `flatten` would give the slice's alone, and takes three times as long.
    values = column.values.slice(column.offset * field.size, len(column) * field.size) if field.shape else column
    array: np.ndarray = values.to_numpy(zero_copy_only=field.dtype != "bool")
    return array.reshape(len(column), *field.shape)
