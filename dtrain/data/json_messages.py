"""Messages whose value is one JSON object, which is one row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.json

from dtrain.data.columns import ColumnError
from dtrain.data.messages import Rows, add_halving
from dtrain.data.schema import Field, Schema

_NO_NEWLINES = bytes.maketrans(b"\r\n", b"  ")


def read_json(values: Iterable[bytes | None], schema: Schema) -> Rows:
    """The rows of `values`; never raises for what is in them. Names that the schema has not are ignored."""
    rows = Rows()
    parsed_as = pa.schema([pa.field(field.name, _parsed_type(field)) for field in schema.fields])

    def add(lines: Sequence[bytes]) -> None:
        try:
            table = _parse(lines, parsed_as)
        except pa.ArrowException:
            table = None
        if table is None or table.num_rows != len(lines):
            raise ColumnError(_why(lines[0], schema) if len(lines) == 1 else "")
        rows.add(table, [1] * len(lines), schema)

    for is_object, group in groupby(map(_line, values), key=_is_object):
        if is_object:
            add_halving(rows, [line for line in group if line is not None], add)
            continue
        for line in group:
            rows.add_bad("no value" if line is None else "not a JSON object")
    return rows


def _line(value: bytes | None) -> bytes | None:
    """The value on one line: in JSON, line ends are but spaces between tokens."""
    return None if value is None else value.translate(_NO_NEWLINES).strip()


def _is_object(line: bytes | None) -> bool:
    """Whether it has the ends of an object: then no parse of many lines can take a part of one for a part of the next."""
    return line is not None and line.startswith(b"{") and line.endswith(b"}") and b"\0" not in line


def _parsed_type(field: Field) -> pa.DataType:
    """What Arrow's JSON reader can parse; a shape is written as a flat list."""
    number = pa.bool_() if field.dtype == "bool" else pa.type_for_alias(field.dtype)
    item = pa.float32() if pa.types.is_float16(number) else number
    return pa.list_(item) if field.shape else item


def _parse(lines: Sequence[bytes], schema: pa.Schema) -> pa.Table:
    joined = b"\n".join(lines)
    return pa.json.read_json(
        pa.BufferReader(joined),
        read_options=pa.json.ReadOptions(use_threads=False, block_size=len(joined) + 1),
        parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _why(line: bytes, schema: Schema) -> str:
    """What is wrong with one line that Arrow refused, in words that do not change with Arrow's."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return "not a JSON object"
    for field in schema.fields:
        if (value := found.get(field.name)) is not None and not _fits(value, field):
            return f"column {field.name!r}: {type(value).__name__} is not {field}"
    return "not one JSON object of the schema, with each name once"


def _fits(value: object, field: Field) -> bool:
    items = value if field.shape and isinstance(value, list) else [value]
    if field.shape and not isinstance(value, list):
        return False
    if field.dtype == "bool":
        return all(isinstance(item, bool) for item in items)
    if "int" not in field.dtype:
        return all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    bounds = np.iinfo(field.dtype)
    return all(type(item) is int and bounds.min <= item <= bounds.max for item in items)
