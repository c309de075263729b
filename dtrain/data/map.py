"""The user's map: from a batch of the stream's columns to one of the task's, row by row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from dtrain.data.columns import ColumnError, clean, indices_of
from dtrain.data.schema import Schema
from dtrain.data.staging import rows_of
from dtrain.data.usercode import UserCode, load
from dtrain.errors import TaskError


class Map:
    """A function of the user's code over whole batches, whose every row is made of the same row alone.

    The first rows are mapped twice, once in halves: a function that looks at other rows would make what a row becomes depend on
    where blocks end, and neither a resumed job nor a replay would see the same.

    Args:
        name: module:function.
        code: the folder of the module; empty for an installed one.
        schema: of what it makes.

    Raises:
        TaskError: there is no such function.
    """

    def __init__(self, name: str, *, code: str, schema: Schema) -> None:
        self._name = name
        found = load(name, code=code)
        if not callable(found):
            raise TaskError(f"`transform.map`: {name} is not a function", fix="name one that takes a pyarrow.RecordBatch")
        self._function: Callable[[pa.RecordBatch], object] = found
        self._schema = schema
        self._is_tried = False

    def __call__(self, batch: pa.RecordBatch, *, where: str) -> pa.RecordBatch:
        """The rows of `batch`, mapped.

        Args:
            batch: the stream's columns.
            where: the rows' range, for errors.

        Raises:
            TaskError: the function raised, or gave something else than as many rows of the task's columns.
        """
        if not batch.num_rows:
            return pa.RecordBatch.from_arrays(
                [pa.array([], field.type) for field in self._schema.arrow], schema=self._schema.arrow
            )
        made = self._mapped(batch, where)
        if not self._is_tried and batch.num_rows > 1:
            middle = batch.num_rows // 2
            halves = [self._mapped(half, where) for half in (batch.slice(0, middle), batch.slice(middle))]
            if not self._is_same(pa.concat_batches(halves), made):
                raise self._wrong("makes something else of a row when fewer rows are with it", where)
            self._is_tried = True
        return made

    def _mapped(self, batch: pa.RecordBatch, where: str) -> pa.RecordBatch:
        with UserCode(f"`transform.map` {self._name}", doing=f"raised for {where}:"):
            found = self._function(batch)
        if not isinstance(found, pa.RecordBatch):
            raise self._wrong(f"gave {type(found).__name__}, not a pyarrow.RecordBatch", where)
        if found.num_rows != batch.num_rows:
            raise self._wrong(f"gave {found.num_rows} rows for {batch.num_rows}", where)
        try:
            columns = found.select(indices_of(found.schema, self._schema))
            made, bad = clean(pa.Table.from_batches([columns]), self._schema)
        except ColumnError as error:
            raise self._wrong(str(error), where) from error
        if bad:
            row, reason = min(bad.items())
            raise self._wrong(f"{reason}, in row {row} of {batch.num_rows}", where)
        return made

    def _is_same(self, one: pa.RecordBatch, other: pa.RecordBatch) -> bool:
        pairs = ((rows_of(one.column(f.name), f), rows_of(other.column(f.name), f)) for f in self._schema.fields)
        return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)

    def _wrong(self, what: str, where: str) -> TaskError:
        return TaskError(
            f"`transform.map` {self._name}, for {where}: {what}",
            fix="give the task's columns, row by row; rows that are not wanted are for `transform.filter`",
        )
