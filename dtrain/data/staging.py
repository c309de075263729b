"""Staging: rows of blocks copied once into private arrays that tensors look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        self._reserve(num_rows)
        at = 0
        for batch, start, stop in parts:
            for field, column in zip(self._schema.tensors, self._columns, strict=True):
                column[at : at + stop - start] = rows_of(batch.column(field.name).slice(start, stop - start), field)
            at += stop - start
        return self._filled(num_rows)

    def gather(self, columns: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Copy `rows` of the columns, in their order.

        Args:
            columns: as `fill` gave them, of another staging.
            rows: int64, each below the number of rows that the columns have.

        Returns:
            As `fill`.
        """
        self._reserve(len(rows))
        filled = self._filled(len(rows))
        for name, column in filled.items():
            np.take(columns[name], rows, axis=0, out=column, mode="clip")  # another mode would copy once more
        return filled

    def _reserve(self, num_rows: int) -> None:
        if num_rows > self._capacity_rows:
            self._capacity_rows = max(num_rows, 2 * self._capacity_rows)
            self._columns = self._allocate()

    def _filled(self, num_rows: int) -> dict[str, np.ndarray]:
        return {field.name: column[:num_rows] for field, column in zip(self._schema.tensors, self._columns, strict=True)}

    def _allocate(self) -> list[np.ndarray]:
        return [aligned_empty((self._capacity_rows, *field.shape), field.dtype) for field in self._schema.tensors]


def aligned_empty(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array without values that begins at a 64-byte boundary."""
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


def rows_of(column: pa.Array, field: Field) -> np.ndarray:
    """The column as an array [rows, *shape] that looks at Arrow's memory; booleans, which are bits there, as bytes.

    Why not `to_numpy`: its first call in a process imports pandas, if that is there, in the middle of a step.
    """
    # `values` is the whole array's; `flatten` would give the slice's alone, and takes three times as long.
    values = column.values.slice(column.offset * field.size, len(column) * field.size) if field.shape else column
    is_bool = field.dtype == "bool"
    values = values.cast(pa.uint8()) if is_bool else values
    dtype = np.dtype(np.uint8 if is_bool else field.dtype)
    flat = np.frombuffer(values.buffers()[1], dtype, count=len(values), offset=values.offset * dtype.itemsize)
    return flat.reshape(len(column), *field.shape)
