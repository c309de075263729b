"""Every format that a message may have: how tests write it, and what a job file says of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import fastavro
import numpy as np
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from pydantic import TypeAdapter

from dtrain.data.formats import reader_of
from dtrain.data.messages import ReadRows
from dtrain.data.schema import Schema
from dtrain.spec.formats import Format
from tests.support.decoders import NOTHING, ROW
from tests.support.messages import arrow

SCHEMA = Schema({"x": "float32[2]", "y": "int64"})

Row = Mapping[str, Any]
"""As {"x": [1.0, 2.0], "y": 1}; a `y` of None makes it bad."""


def row(number: int | None) -> dict[str, Any]:
    """A good row, or a bad one."""
    return {"note": f"row {number}", "x": [number or 0, 0.5], "y": number}


AVRO = {
    "type": "record",
    "name": "shop.Click",
    "fields": [
        {"name": "note", "type": "string"},
        {"name": "x", "type": {"type": "array", "items": "float"}},
        {"name": "y", "type": ["null", "long"]},
    ],
}


def descriptors() -> bytes:
    """What `protoc --descriptor_set_out` writes for a message shop.Click with note, x and y, and an Inner one."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="NONE", number=0)
    kind.value.add(name="SOME", number=1)
    click = file.message_type.add(name="Click")
    field = descriptor_pb2.FieldDescriptorProto
    click.field.add(name="note", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    click.field.add(name="x", number=2, type=field.TYPE_FLOAT, label=field.LABEL_REPEATED)
    click.oneof_decl.add(name="_y")
    click.field.add(name="y", number=3, type=field.TYPE_INT64, label=1, proto3_optional=True, oneof_index=0)
    click.field.add(name="inner", number=4, type=field.TYPE_MESSAGE, label=3, type_name=".shop.Click")
    click.field.add(name="kind", number=5, type=field.TYPE_ENUM, label=1, type_name=".shop.Kind")
    click.field.add(name="plain", number=6, type=field.TYPE_SINT32, label=1)
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def click_type() -> Any:
    """The class of shop.Click."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Click"))


CLICK = click_type()
PROTOBUF = {"type": "protobuf", "descriptors": "base64:" + base64.b64encode(descriptors()).decode(), "message": "shop.Click"}


class Kind(NamedTuple):
    """A format: its name in a test, what a job file says, how rows become one message, and whether that may be several."""

    name: str
    spec: Any
    write: Callable[[Sequence[Row]], bytes]
    has_many: bool = True

    def reader(self) -> ReadRows:
        return reader_of(format_of(self.spec))


def format_of(spec: Any) -> Format:
    """What the value of `source.format` means."""
    found: Format = TypeAdapter(Format).validate_python(spec)
    return found


def table_of(rows: Sequence[Row]) -> pa.Table:
    xs = pa.array([row["x"] for row in rows], pa.list_(pa.float32(), 2))
    return pa.table(
        {
            "note": pa.array([row["note"] for row in rows], pa.string()),
            "x": xs,
            "y": pa.array([row["y"] for row in rows], pa.int64()),
        }
    )


def arrow_file(rows: Sequence[Row]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table_of([]).schema) as writer:
        writer.write_table(table_of(rows), max_chunksize=2)
    return bytes(sink.getvalue())


def arrow_dictionaries(rows: Sequence[Row]) -> bytes:
    table = table_of(rows)
    return arrow(table.set_column(2, "y", table["y"].dictionary_encode()), rows_a_batch=2)


def json_array(rows: Sequence[Row]) -> bytes:
    return json.dumps(list(rows)).encode()


def json_lines(rows: Sequence[Row]) -> bytes:
    """An object a line; as an array where there are none or one, which is no line's."""
    return "\n".join(map(json.dumps, rows)).encode() if rows else b"[]"


def avro(rows: Sequence[Row], definition: Mapping[str, Any] = AVRO) -> bytes:
    sink = BytesIO()
    fastavro.schemaless_writer(sink, fastavro.parse_schema(dict(definition)), dict(rows[0]))
    return sink.getvalue()


def protobuf(rows: Sequence[Row]) -> bytes:
    return bytes(CLICK(**{name: value for name, value in rows[0].items() if value is not None}).SerializeToString())


def raw(rows: Sequence[Row]) -> bytes:
    filled = [(NOTHING if row["y"] is None else row["y"], row["x"]) for row in rows]
    return np.array(filled, ROW).tobytes()


KINDS = (
    Kind("arrow", "arrow", lambda rows: arrow(table_of(rows))),
    Kind("arrow-batches", "arrow", lambda rows: arrow(table_of(rows), rows_a_batch=2)),
    Kind("arrow-lz4", "arrow", lambda rows: arrow(table_of(rows), codec="lz4")),
    Kind("arrow-zstd", "arrow", lambda rows: arrow(table_of(rows), rows_a_batch=3, codec="zstd")),
    Kind("arrow-file", "arrow", arrow_file),
    Kind("arrow-dictionaries", "arrow", arrow_dictionaries),
    Kind("json-object", "json", lambda rows: json.dumps(rows[0]).encode(), has_many=False),
    Kind("json-array", "json", json_array),
    Kind("json-lines", "json", json_lines),
    Kind("avro", {"type": "avro", "definition": AVRO}, avro, has_many=False),
    Kind("raw", {"type": "raw", "decoder": "tests.support.decoders:decode"}, raw),
    Kind("protobuf", PROTOBUF, protobuf, has_many=False),
)
