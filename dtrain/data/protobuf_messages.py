"""Messages whose value is a Protobuf message of one type, which a file of descriptors describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from dtrain.data.block import RawRecord
from dtrain.data.columns import ColumnError, indices_of
from dtrain.data.messages import Rows, add_halving, array_of, row_bytes, taken
from dtrain.data.schema import Schema
from dtrain.errors import SpecError
from dtrain.spec.formats import ProtobufFormat

_COLUMNS = {
    FieldDescriptor.CPPTYPE_INT32: pa.int32(),
    FieldDescriptor.CPPTYPE_INT64: pa.int64(),
    FieldDescriptor.CPPTYPE_UINT32: pa.uint32(),
    FieldDescriptor.CPPTYPE_UINT64: pa.uint64(),
    FieldDescriptor.CPPTYPE_DOUBLE: pa.float64(),
    FieldDescriptor.CPPTYPE_FLOAT: pa.float32(),
    FieldDescriptor.CPPTYPE_BOOL: pa.bool_(),
    FieldDescriptor.CPPTYPE_ENUM: pa.int32(),
    FieldDescriptor.CPPTYPE_STRING: pa.string(),
    FieldDescriptor.CPPTYPE_MESSAGE: pa.struct([("message", pa.null())]),
}
_BLOWN_UP = 8
"""About how many bytes of memory a byte of a message may become."""

Getter = Callable[[Any], object]


class _Wanted(NamedTuple):
    """The wanted fields: a type of message that knows them alone, their columns, and how each is got."""

    make: type[Message]
    columns: pa.Schema
    getters: list[Getter]


class ProtobufReader:
    """Reads Protobuf; see `ReadRows`.

    Args:
        spec: descriptors, and the messages' type.

    Raises:
        SpecError: the descriptors are none, or the type is not among them.
    """

    def __init__(self, spec: ProtobufFormat) -> None:
        self._descriptor = _descriptor(spec)
        self._columns = pa.schema([pa.field(field.name, _column(field)) for field in self._descriptor.fields])
        self._schema: Schema | None = None
        self._wanted: _Wanted | str = ""

    def __call__(self, records: Sequence[RawRecord], schema: Schema) -> Rows:
        """The rows of the records' values."""
        if schema is not self._schema:
            self._schema, self._wanted = schema, self._wanted_of(schema)
        rows, wanted, width = Rows(), self._wanted, row_bytes(schema)
        some = taken(records, lambda record: _BLOWN_UP * len(record.value or b"") + width)
        read = (wanted if isinstance(wanted, str) else _parsed(record.value, wanted.make) for record in some)
        for is_bad, group in groupby(read, key=lambda message: isinstance(message, str)):
            alike = list(group)
            if not is_bad:
                add_halving(rows, alike, lambda some: _add(rows, some, wanted, schema))  # type: ignore[arg-type]
                continue
            for reason in alike:
                rows.add_bad(str(reason))
        return rows

    def _wanted_of(self, schema: Schema) -> _Wanted | str:
        try:
            indices = indices_of(self._columns, schema)
        except ColumnError as error:
            return str(error)
        fields = [self._descriptor.fields[index] for index in indices]
        columns = pa.schema([self._columns.field(index) for index in indices])
        return _Wanted(_type_of(fields), columns, [_getter(field) for field in fields])


def _descriptor(spec: ProtobufFormat) -> Descriptor:
    path, pool = "source.format.descriptors", descriptor_pool.DescriptorPool()
    fix = "make it by `protoc --include_imports --descriptor_set_out=FILE`"
    try:
        for file in descriptor_pb2.FileDescriptorSet.FromString(spec.descriptor_bytes).file:
            pool.Add(file)
    except (DecodeError, TypeError, ValueError) as error:
        raise SpecError(f"holds no descriptors: {error}", fix=fix, path=path) from error
    try:
        return pool.FindMessageTypeByName(spec.message)
    except (KeyError, TypeError) as error:
        words = f"{spec.message} is not in the file of descriptors"
        raise SpecError(words, fix=f"write its full name, or {fix}", path="source.format.message") from error


def _column(field: FieldDescriptor) -> pa.DataType:
    kind = pa.binary() if field.type == FieldDescriptor.TYPE_BYTES else _COLUMNS[field.cpp_type]
    return pa.list_(kind) if field.is_repeated else kind


def _type_of(fields: Sequence[FieldDescriptor]) -> type[Message]:
    """A type with these fields alone: everything else of a message is kept as the bytes that it is, or costs nothing.

    Whether a message nests without end, or holds a million empty ones, is then all the same. Enumerations are numbers.
    """
    file = descriptor_pb2.FileDescriptorProto(name="wanted.proto", syntax="proto2", package="dtrain")
    wanted = file.message_type.add(name="Wanted")
    for field in fields:
        one = wanted.field.add(name=field.name, number=field.number, type=field.type)
        one.label = one.LABEL_REPEATED if field.is_repeated else one.LABEL_OPTIONAL
        if field.type == FieldDescriptor.TYPE_ENUM:
            one.type = one.TYPE_INT32
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dtrain.Wanted"))


def _getter(field: FieldDescriptor) -> Getter:
    """How a field is got; null where it can be told that it was not set."""
    name = field.name
    if field.is_repeated:
        return lambda message: list(getattr(message, name))
    if field.has_presence:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    return lambda message: getattr(message, name)


def _parsed(value: bytes | None, make: type[Message]) -> Message | str:
    if value is None:
        return "no value"
    message = make()
    try:
        message.ParseFromString(value)
    except (DecodeError, ValueError, RecursionError, MemoryError):
        return "not a Protobuf message, or a broken one"
    return message


def _add(rows: Rows, messages: Sequence[Message], wanted: _Wanted, schema: Schema) -> None:
    arrays = [_array(messages, getter, field) for getter, field in zip(wanted.getters, wanted.columns, strict=True)]
    rows.add(pa.Table.from_arrays(arrays, schema=wanted.columns), [1] * len(messages), schema)


def _array(messages: Sequence[Message], getter: Getter, field: pa.Field) -> pa.Array:
    try:
        values = [getter(message) for message in messages]
    except ValueError as error:  # a text that is not UTF-8
        raise ColumnError(f"column {field.name!r}: a value is not {field.type}") from error
    return array_of(values, field)
