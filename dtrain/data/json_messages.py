"""Messages of JSON: an object is a row. A message is one, or an array of them, or one in each of its lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby, islice

import numpy as np
import pyarrow as pa
import pyarrow.json

from dtrain.data.block import RawRecord
from dtrain.data.columns import ColumnError
from dtrain.data.json_shapes import ARRAY, LINES, NO_ARRAY, NO_OBJECT, UNSURE, Shape, is_object, items_of, shape_of
from dtrain.data.messages import BLOCK_BYTES, Rows, add_halving, most_rows, row_bytes, taken, too_many
from dtrain.data.schema import Field, Schema


def read_json(records: Sequence[RawRecord], schema: Schema) -> Rows:
    """The rows of the records' values; see `ReadRows`. Names that the schema has not are ignored."""
    values = [record.value for record in records]
    reader = _Reader(schema)
    rows = Rows()
    if not reader.add_plain(rows, values):
        shapes = taken(map(reader.shape_of, values), lambda shape: len(shape.text) + shape.num_rows * reader.row_bytes)
        reader.add_mixed(rows, list(shapes))
    return rows


class _Reader:
    """Parses texts of one schema."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._objects = pa.schema([pa.field(field.name, field.text_type) for field in schema.fields])
        self._arrays = pa.schema([pa.field("rows", pa.list_(pa.struct(list(self._objects))))])
        self._most_rows = most_rows(schema)
        self.row_bytes = row_bytes(schema)

    def add_plain(self, rows: Rows, values: Sequence[bytes | None]) -> bool:
        """Add one object a value, or nothing where they are not just that: what most topics are, with no work a row."""
        if not values or None in values:
            return False
        text, count = b"\n".join([value.strip() for value in values]), len(values)  # type: ignore[union-attr]
        is_plain = is_object(text) and text.count(b"\n") == text.count(b"}\n{") == count - 1
        is_small = len(text) + count * self.row_bytes < BLOCK_BYTES
        if not (is_plain and is_small) or b"\0" in text or b"\r" in text:
            return False
        try:
            rows.add(_parsed(text, self._objects, count), [1] * count, self._schema)
        except ColumnError:
            return False
        return True

    def shape_of(self, value: bytes | None) -> Shape:
        """The shape of a value that has not too many rows."""
        shape = shape_of(value)
        if shape.num_rows <= self._most_rows or (shape.kind == ARRAY and self._is_bounded(shape.text)):
            return shape
        return Shape(too_many(self._schema))

    def add_mixed(self, rows: Rows, shapes: Sequence[Shape]) -> None:
        """Add values of any kind."""
        parts = Rows()
        for _, group in groupby((shape for shape in shapes if not shape.is_bad), key=lambda shape: shape.kind):
            alike = list(group)
            try:
                self._add(parts, alike)
            except ColumnError:
                self._add_checked(parts, alike)
        rows.add_among(parts, [shape.kind if shape.is_bad else "" for shape in shapes])

    def _add_checked(self, rows: Rows, shapes: Sequence[Shape]) -> None:
        """Add values of one kind of which some are bad, those that are plainly bad by themselves: halving costs the most."""
        reasons = [self._fault(shape) for shape in shapes]
        parts = Rows()
        rest = [shape for shape, reason in zip(shapes, reasons, strict=True) if not reason]
        add_halving(parts, rest, lambda some: self._add(parts, some))
        rows.add_among(parts, reasons)

    def _fault(self, shape: Shape) -> str:
        """Why a value of one line is bad; empty if it is not, or if that is not plain."""
        if shape.kind != LINES or shape.num_rows > 1 or not _doubt(shape.text, self._schema):
            return ""
        alone = Rows()
        add_halving(alone, [shape], lambda some: self._add(alone, some))
        return alone.rejects.get((0, 0), "")

    def _add(self, rows: Rows, shapes: Sequence[Shape]) -> None:
        """Add values of one kind; a value with several rows that cannot be parsed, row by row.

        Raises:
            ColumnError: there are several values, or one of a single row. Nothing was added.
        """
        try:
            (self._add_arrays if shapes[0].kind == ARRAY else self._add_lines)(rows, shapes)
        except ColumnError as error:
            if len(shapes) > 1:
                raise
            (shape,) = shapes
            if shape.kind == LINES and shape.num_rows == 1:
                raise ColumnError(str(error) or _why(shape.text, self._schema)) from error
            rows.add_apart(self._apart(_texts_of(shape)))

    def _add_lines(self, rows: Rows, shapes: Sequence[Shape]) -> None:
        counts = [1 if shape.kind == UNSURE else shape.num_rows for shape in shapes]
        texts = [shape.text.replace(b"\n", b" ") if shape.kind == UNSURE else shape.text for shape in shapes]
        if not all(map(is_object, texts)):
            raise ColumnError
        rows.add(_parsed(b"\n".join(texts), self._objects, sum(counts)), counts, self._schema)

    def _add_arrays(self, rows: Rows, shapes: Sequence[Shape]) -> None:
        text = b"\n".join(b'{"rows":%b}' % shape.text for shape in shapes)
        lists = _parsed(text, self._arrays, len(shapes)).column(0).combine_chunks()
        objects = lists.flatten()
        if lists.null_count or objects.null_count:
            raise ColumnError
        rows.add(pa.Table.from_arrays(objects.flatten(), schema=self._objects), lists.value_lengths().to_pylist(), self._schema)

    def _apart(self, texts: Sequence[bytes]) -> Rows:
        parts = Rows()
        self.add_mixed(parts, [Shape(LINES if is_object(text) else NO_OBJECT, text) for text in texts])
        return parts

    def _is_bounded(self, array: bytes) -> bool:
        try:
            return sum(1 for _ in islice(items_of(array), self._most_rows + 1)) <= self._most_rows
        except ValueError:
            return True  # and bad for another reason


def _texts_of(shape: Shape) -> list[bytes]:
    """The texts of a value's rows.

    Raises:
        ColumnError: it has none.
    """
    if shape.kind != ARRAY:
        return [text for line in shape.text.split(b"\n") if (text := line.strip())]
    try:
        return list(items_of(shape.text))
    except ValueError as error:
        raise ColumnError(NO_ARRAY) from error


def _parsed(text: bytes, schema: pa.Schema, count: int) -> pa.Table:
    """The table in a text of `count` objects.

    Raises:
        ColumnError: it is not one of so many; without a reason.
    """
    try:
        table = pa.json.read_json(
            pa.BufferReader(text),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowException as error:
        raise ColumnError from error
    if table.num_rows != count:
        raise ColumnError
    return table


def _why(line: bytes, schema: Schema) -> str:
    """What is wrong with one line that Arrow refused, in words that do not change with Arrow's."""
    return _doubt(line, schema) or "not one JSON object of the schema, with each name once"


def _doubt(line: bytes, schema: Schema) -> str:
    """What seems to be wrong with one line, which Arrow alone decides; empty for nothing."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return NO_OBJECT
    for field in schema.fields:
        if (value := found.get(field.name)) is not None and not _fits(value, field):
            return f"column {field.name!r}: {type(value).__name__} is not {field}"
    return ""


def _fits(value: object, field: Field) -> bool:
    items = value if field.shape and isinstance(value, list) else [value]
    if field.shape and not isinstance(value, list):
        return False
    if field.kind != "number":
        return all(isinstance(item, str) for item in items)
    if field.source_dtype == "bool":
        return all(isinstance(item, bool) for item in items)
    if "int" not in field.source_dtype:
        return all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    bounds = np.iinfo(field.source_dtype)
    return all(type(item) is int and bounds.min <= item <= bounds.max for item in items)
