"""Columns as they came, made those of the schema: null-free, of the right type and shape, contiguous."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dtrain.data.schema import Field, Schema


class ColumnError(ValueError):
    """A column is not what the schema says, in all of its rows; the text is the reason, and names the column."""


def indices_of(found: pa.Schema, schema: Schema) -> list[int]:
    """Where the schema's columns stand in `found`, by name.

    Raises:
        ColumnError: a column is missing, or is there twice, or is neither of numbers nor of lists of them.
    """
    indices = []
    for field in schema.fields:
        places = found.get_all_field_indices(field.name)
        if len(places) != 1:
            raise ColumnError(f"column {field.name!r} is {'there twice' if places else 'missing'}")
        _levels(found.field(places[0]).type, field)
        indices.append(places[0])
    return indices


def clean(table: pa.Table, schema: Schema) -> tuple[pa.RecordBatch, dict[int, str]]:
    """The rows of `table` that are of the schema, as one batch, and why the others are not.

    Args:
        table: with every column of the schema, as `indices_of` checked, in the schema's order, and no others.
        schema: the columns to make.

    Returns:
        The good rows in their order, and row → reason for the others.

    Raises:
        ColumnError: values of a column do not fit its type.
    """
    columns = [_whole(column) for column in table.columns]
    rows = np.arange(table.num_rows)
    bad: dict[int, str] = {}
    for index, field in enumerate(schema.fields):
        while (fault := _fault(columns[index], field)) is not None:
            is_good, reason = fault
            bad.update(dict.fromkeys(rows[~is_good].tolist(), reason))
            rows = rows[is_good]
            columns = [column.filter(pa.array(is_good)) for column in columns]
    arrays = [_conformed(column, field) for column, field in zip(columns, schema.fields, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow), bad


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array of its own memory; dictionaries and extension types replaced by what they stand for."""
    chunks = column.chunks
    if isinstance(column.type, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in chunks]
    elif pa.types.is_dictionary(column.type):
        chunks = [chunk.dictionary_decode() for chunk in chunks]
    return pa.concat_arrays(chunks) if chunks else pa.array([], _plain(column.type))


def _plain(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _levels(kind: pa.DataType, field: Field) -> tuple[int, ...]:
    """How long the lists are at each level of a column of type `kind`: flat, or nested as the shape is.

    Raises:
        ColumnError: the type cannot become the field's.
    """
    depth, leaf = 0, _plain(kind)
    while pa.types.is_list(leaf) or pa.types.is_large_list(leaf) or pa.types.is_fixed_size_list(leaf):
        depth, leaf = depth + 1, leaf.value_type
    is_number = pa.types.is_integer(leaf) or pa.types.is_floating(leaf)
    is_right = pa.types.is_boolean(leaf) or (is_number and field.dtype != "bool")
    shapes = {0: (), 1: (field.size,), len(field.shape): field.shape}
    if not is_right or depth not in shapes or bool(depth) != bool(field.shape):
        raise ColumnError(f"column {field.name!r}: {kind} is not {field}")
    return shapes[depth]


def _fault(array: pa.Array, field: Field) -> tuple[np.ndarray, str] | None:
    """The first thing that is wrong with some rows: which rows are good all the same, and the reason for the others."""
    values, stride = array, 1
    for length in _levels(array.type, field):
        if values.null_count:
            return _good_rows(values.is_valid(), stride), f"column {field.name!r} is null"
        if not pa.types.is_fixed_size_list(values.type) or values.type.list_size != length:
            is_right = pc.equal(pc.list_value_length(values), length)
            if not pc.all(is_right, min_count=0).as_py():
                return _good_rows(is_right, stride), f"column {field.name!r} has not the shape of {field}"
        values, stride = values.flatten(), stride * length
    if values.null_count:
        return _good_rows(values.is_valid(), stride), f"column {field.name!r} is null"
    return None


def _good_rows(is_good: pa.Array, stride: int) -> np.ndarray:
    """Which rows have only good elements, `stride` of them in each."""
    found: np.ndarray = is_good.to_numpy(zero_copy_only=False).reshape(-1, stride).all(axis=1)
    return found


def _conformed(array: pa.Array, field: Field) -> pa.Array:
    values = array
    for _ in _levels(array.type, field):
        values = values.flatten()
    item = field.arrow_type.value_type if field.shape else field.arrow_type
    if values.type != item:
        try:
            values = values.cast(item)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ColumnError(f"column {field.name!r}: a {values.type} does not fit {field}") from error
    return pa.FixedSizeListArray.from_arrays(values, type=field.arrow_type) if field.shape else values
