"""Columns as they came, made those of the schema: null-free, of the right type and shape, contiguous."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtrain.data.schema import Field, Schema
from dtrain.data.values import converted, is_convertible

MAX_FILLED_BYTES = 256 << 20
"""How much memory the defaults of one column may take in the messages that are decoded together: a column of nulls is as long
as it says, and takes no bytes.
"""


class ColumnError(ValueError):
    """A column is not what the schema says, in all of its rows; the text is the reason, and names the column."""


class _Fault(NamedTuple):
    """What is wrong with some rows, and which are good all the same."""

    is_good: np.ndarray
    reason: str


def indices_of(found: pa.Schema, schema: Schema) -> list[int]:
    """Where the schema's columns stand in `found`, by name; those that are missing and have a default are left out.

    Raises:
        ColumnError: a column is missing, or is there twice, or cannot become the schema's; or none of them is there.
    """
    indices = [place for field in schema.fields if (place := _place(found, field)) is not None]
    if not indices:
        raise ColumnError(f"column {schema.fields[0].name!r} is missing, and every other")
    return indices


def clean(table: pa.Table, schema: Schema) -> tuple[pa.RecordBatch, dict[int, str]]:
    """The rows of `table` that are of the schema, as one batch, and why the others are not.

    Args:
        table: with the schema's columns, in any order; others are ignored.
        schema: the columns to make.

    Returns:
        The good rows in their order, and row → reason for the others.

    Raises:
        ColumnError: a column is not what the schema says, or is one with which Arrow fails.
    """
    indices_of(table.schema, schema)
    try:
        return _clean(table, schema)
    except (pa.ArrowException, MemoryError) as error:
        raise ColumnError("a column cannot be converted") from error


def _clean(table: pa.Table, schema: Schema) -> tuple[pa.RecordBatch, dict[int, str]]:
    columns = [_found(table, field) for field in schema.fields]
    rows = np.arange(table.num_rows)
    bad: dict[int, str] = {}
    made: list[pa.Array] = []
    for index, field in enumerate(schema.fields):
        while isinstance(outcome := _made(columns[index], field), _Fault):
            bad.update(dict.fromkeys(rows[~outcome.is_good].tolist(), outcome.reason))
            rows, is_good = rows[outcome.is_good], pa.array(outcome.is_good)
            columns = [column.filter(is_good) for column in columns]
            made = [column.filter(is_good) for column in made]
        made += outcome
    names = [tensor.name for field in schema.fields for tensor in (field, field.mask) if tensor is not None]
    arrays = dict(zip(names, made, strict=True))
    return pa.RecordBatch.from_arrays([arrays[tensor.name] for tensor in schema.tensors], schema=schema.arrow), bad


def _place(found: pa.Schema, field: Field) -> int | None:
    """Where the column stands; None where its default stands for it."""
    places = found.get_all_field_indices(field.name)
    if len(places) == 1:
        _levels(found.field(places[0]).type, field)
        return int(places[0])
    if places or field.fill is None:
        raise ColumnError(f"column {field.name!r} is {'there twice' if places else 'missing'}")
    return None


def _found(table: pa.Table, field: Field) -> pa.Array:
    """The column as one array of its own memory; nulls where it is missing.

    Raises:
        ColumnError: as `_place` does; or its defaults are more than fit into memory.
    """
    place = _place(table.schema, field)
    column = table.column(place) if place is not None else pa.chunked_array([pa.nulls(table.num_rows)])
    if field.fill is not None and column.null_count * field.size * np.dtype(field.dtype).itemsize > MAX_FILLED_BYTES:
        raise ColumnError(f"column {field.name!r} is missing in more rows than fit into memory")
    chunks = [_plain(chunk) for chunk in column.chunks]
    return pa.concat_arrays(chunks) if chunks else pa.array([], _plain_type(column.type))


def _plain(array: pa.Array) -> pa.Array:
    """Dictionaries and extension types replaced by what they stand for, views by copies."""
    if isinstance(array.type, pa.BaseExtensionType):
        return array.storage
    if pa.types.is_dictionary(array.type):
        if pa.types.is_string_view(array.type.value_type):  # which Arrow cannot write out
            array = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.large_string()))
        array = array.dictionary_decode()
    return array.cast(_plain_type(array.type)) if pa.types.is_string_view(array.type) else array


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.large_string() if pa.types.is_string_view(kind) else kind


def is_list(kind: pa.DataType) -> bool:
    """Whether it is one of the lists that may be a column of a shape."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _levels(kind: pa.DataType, field: Field) -> tuple[int, ...]:
    """How long the lists are at each level of a column of type `kind`: flat, or nested as the shape is.

    Raises:
        ColumnError: the type cannot become the field's.
    """
    depth, leaf = 0, _plain_type(kind)
    if pa.types.is_null(leaf) and field.fill is not None:
        return ()
    while is_list(leaf):
        depth, leaf = depth + 1, _plain_type(leaf.value_type)
    shapes = {0: (), 1: (field.size,), len(field.shape): field.shape}
    if not is_convertible(leaf, field) or depth not in shapes or bool(depth) != bool(field.shape):
        raise ColumnError(f"column {field.name!r}: {kind} is not {field}")
    return shapes[depth]


def _made(array: pa.Array, field: Field) -> list[pa.Array] | _Fault:
    """The block's column, and its mask behind it where it has one."""
    is_there = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    if is_there is not None and field.fill is None:
        return _Fault(is_there, f"column {field.name!r} is null")
    outcome = _values(array if is_there is None else array.drop_null(), field)
    if isinstance(outcome, _Fault):
        return outcome if is_there is None else outcome._replace(is_good=_spread(outcome.is_good, is_there, other=True))
    column, is_whole = outcome
    if is_there is not None:
        column, is_whole = _with_defaults(column, is_there, field), _spread(is_whole, is_there, other=False)
    return [column] if field.mask is None else [column, pa.array(~is_whole)]


def _values(array: pa.Array, field: Field) -> tuple[pa.Array, np.ndarray] | _Fault:
    """The block's column of rows that are there, and which of them hold no null."""
    values, stride = array, 1
    for length in _levels(array.type, field):
        if values.null_count:
            return _Fault(_good_rows(values.is_valid(), stride), f"column {field.name!r} is null")
        if not pa.types.is_fixed_size_list(values.type) or values.type.list_size != length:
            is_right = pc.equal(pc.list_value_length(values), length)
            if not pc.all(is_right, min_count=0).as_py():
                return _Fault(_good_rows(is_right, stride), f"column {field.name!r} has not the shape of {field}")
        values, stride = _plain(values.flatten()), stride * length
    is_there = values.is_valid().to_numpy(zero_copy_only=False) if values.null_count else None
    if is_there is not None and field.fill is None:
        return _Fault(_good_rows(is_there, stride), f"column {field.name!r} is null")
    if pa.types.is_null(values.type):  # all of them are the default's: nothing is there
        return _column(np.empty(0, field.dtype), field), np.empty(0, bool)
    numbers, is_good, reason = converted(values if is_there is None else values.drop_null(), field)
    if is_good is not None and not is_good.all():
        spread = is_good if is_there is None else _spread(is_good, is_there, other=True)
        return _Fault(_good_rows(spread, stride), reason)
    if is_there is not None:
        numbers = _spread(numbers, is_there, other=field.fill)
    is_whole = np.ones(len(array), bool) if is_there is None else _good_rows(is_there, stride)
    return _column(numbers, field), is_whole


def _good_rows(is_good: pa.Array | np.ndarray, stride: int) -> np.ndarray:
    """Which rows have only good elements, `stride` of them in each."""
    flat = is_good if isinstance(is_good, np.ndarray) else is_good.to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(-1, stride).all(axis=1))


def _column(numbers: np.ndarray, field: Field) -> pa.Array:
    values = pa.array(numbers, field.item_type)
    return pa.FixedSizeListArray.from_arrays(values, type=field.arrow_type) if field.shape else values


def _spread(values: np.ndarray, is_there: np.ndarray, *, other: object) -> np.ndarray:
    """`values` in the places that are there, `other` in the rest."""
    whole = np.full(len(is_there), other, values.dtype)
    whole[is_there] = values
    return whole


def _with_defaults(column: pa.Array, is_there: np.ndarray, field: Field) -> pa.Array:
    """The rows of `column` where they are there, the default in the others."""
    places = np.full(len(is_there), len(column))
    places[is_there] = np.arange(len(column))
    default = _column(np.full(field.size, field.fill, field.dtype), field)
    return pa.concat_arrays([column, default]).take(pa.array(places))
