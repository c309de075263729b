"""Messages whose value is an Avro record, with or without the id of its schema in front."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import groupby, islice
from typing import Any, NamedTuple

import pyarrow as pa
from fastavro import schemaless_reader
from fastavro.read import SchemaResolutionError

from dtrain.data.avro_schemas import AvroSchema, avro_schema
from dtrain.data.block import RawRecord
from dtrain.data.columns import ColumnError, indices_of
from dtrain.data.messages import Rows, add_halving, array_of, row_bytes, taken
from dtrain.data.missing_schemas import MissingSchemas, no_schema
from dtrain.data.registry import MissingSchemaError, Registry, UnknownSchemaError
from dtrain.data.schema import Schema
from dtrain.errors import InputError, SpecError, UnavailableError
from dtrain.spec.formats import AvroFormat

_ERRORS = (EOFError, ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError)
"""What fastavro raises for bytes that are no such record; which, depends on the broken byte."""

_HEAD_BYTES = 5
_KNOWN_SCHEMAS = 1000
_ASKED_AHEAD = 100
"""For how many more schemas the registry is asked where one is waited for: they are waited for together, and not one after the other."""

_BLOWN_UP = 8
"""About how many bytes of Python's objects a byte of a record may become."""


class _Item(NamedTuple):
    """One value, read: its fields, and the types of those that are wanted; or why it could not be."""

    columns: pa.Schema | None
    fields: dict[str, Any]
    reason: str = ""
    num_bytes: int = 0


class _AwaitedError(Exception):
    """A record cannot be read before the registry has its schema, which it may soon have."""


class AvroReader:
    """Reads Avro; see `ReadRows`. Keeps the schemas that it has seen.

    Args:
        spec: the schema, or where schemas are.

    Raises:
        SpecError: the schema in it is none.
    """

    def __init__(self, spec: AvroFormat) -> None:
        self._own = _own_schema(spec)
        self._registry = None if spec.registry == "none" else Registry(spec.registry)
        self._missing = MissingSchemas(wait_s=0.0 if spec.registry == "none" else spec.registry.wait)
        self._writers: dict[int, AvroSchema | str] = {}
        self._schema: Schema | None = None
        self._wanted: dict[int, pa.Schema | str] = {}

    def __call__(self, records: Sequence[RawRecord], schema: Schema) -> Rows:
        """The rows of the records' values; up to the first of a schema that is waited for.

        Raises:
            UnavailableError: the registry does not answer, or has not the schema of the first record yet.
            AuthError: the registry refuses, or a secret is not there.
        """
        if schema is not self._schema:
            self._schema, self._wanted = schema, {}
        rows, width = Rows(), row_bytes(schema)
        items = taken(self._items(records), lambda item: item.num_bytes + width)
        for columns, group in groupby(items, key=lambda item: item.columns):
            alike = list(group)
            if columns is not None:
                add_halving(rows, alike, lambda some: _add(rows, some, schema))
                continue
            for item in alike:
                rows.add_bad(item.reason)
        return rows

    def _items(self, records: Sequence[RawRecord]) -> Iterator[_Item]:
        """Each, up to the first that is waited for; whether those behind it are to be waited for too is found out at once."""
        for index, record in enumerate(records):
            try:
                item = self._item(record.value)
            except _AwaitedError as error:
                self._ask_ahead(records[index:])
                if index:
                    return
                raise UnavailableError(f"{error} yet", fix="register it; after `wait` the messages by it are bad") from error
            yield item

    def _ask_ahead(self, records: Sequence[RawRecord]) -> None:
        """The registry is asked for the schemas of records behind the first, which is waited for."""
        ids = (_id_of(record.value) for record in records)
        unknown = dict.fromkeys(found for found in ids if found is not None and found not in self._writers)
        for schema_id in islice(unknown, 1, 1 + _ASKED_AHEAD):
            with contextlib.suppress(_AwaitedError, ColumnError):
                self._writer(schema_id)

    def _item(self, value: bytes | None) -> _Item:
        try:
            schema_id, writer, body = self._opened(value)
            columns = self._columns(schema_id, writer)
            source = BytesIO(body)
            fields = schemaless_reader(source, writer.parsed, self._own.parsed if self._own is not None else None)
        except ColumnError as error:
            return _Item(None, {}, str(error))
        except SchemaResolutionError:
            return _Item(None, {}, "not an Avro record that can be read by the job's schema")
        except _ERRORS:
            return _Item(None, {}, "not an Avro record of its schema, or a broken one")
        if source.tell() != len(body):
            return _Item(None, {}, "bytes behind the end of the Avro record")
        return _Item(columns, fields, "", _BLOWN_UP * len(body))  # type: ignore[arg-type]

    def _opened(self, value: bytes | None) -> tuple[int, AvroSchema, bytes]:
        """The id of the schema that a value is written by, the schema, and the rest."""
        if value is None:
            raise ColumnError("no value")
        if self._registry is None:
            assert self._own is not None  # noqa: S101 - the spec sees to it
            return -1, self._own, value
        schema_id = _id_of(value)
        if schema_id is None:
            raise ColumnError("does not begin with a byte 0 and a schema's id")
        writer = self._writers.get(schema_id) or self._writer(schema_id)
        if isinstance(writer, str):
            raise ColumnError(writer)
        return schema_id, writer, value[_HEAD_BYTES:]

    def _writer(self, schema_id: int) -> AvroSchema | str:
        """The schema of an id that is not known here, or why records by it are bad for ever; known from now on.

        Raises:
            ColumnError: they are bad for now.
            _AwaitedError: the registry may have it soon.
        """
        assert self._registry is not None  # noqa: S101 - there are no ids without one
        if self._missing.is_given_up(schema_id, now_s=time.monotonic()):
            raise ColumnError(no_schema(schema_id))
        writer = self._asked(schema_id, self._registry)
        if len(self._writers) >= _KNOWN_SCHEMAS:
            self._writers.clear()
            self._wanted.clear()
        self._writers[schema_id] = writer
        return writer

    def _columns(self, schema_id: int, writer: AvroSchema) -> pa.Schema:
        """The columns that are wanted of what a schema's records are read as; the same object where they are equal."""
        assert self._schema is not None  # noqa: S101 - set by every call
        if schema_id not in self._wanted:
            found = (self._own or writer).columns
            try:
                wanted: pa.Schema | str = pa.schema([found.field(index) for index in indices_of(found, self._schema)])
            except ColumnError as error:
                wanted = str(error)
            self._wanted[schema_id] = next((known for known in self._wanted.values() if known == wanted), wanted)
        columns = self._wanted[schema_id]
        if isinstance(columns, str):
            raise ColumnError(columns)
        return columns

    def _asked(self, schema_id: int, registry: Registry) -> AvroSchema | str:
        """See `_writer`."""
        try:
            return avro_schema(registry.schema(schema_id))
        except MissingSchemaError as error:
            if self._missing.missed(schema_id, now_s=time.monotonic()):
                raise _AwaitedError(str(error)) from error
            raise ColumnError(str(error)) from error
        except UnknownSchemaError as error:
            return str(error)
        except InputError as error:
            return f"schema {schema_id}: {error.reason}"


def _own_schema(spec: AvroFormat) -> AvroSchema | None:
    if not spec.definition:
        return None
    try:
        return avro_schema(spec.definition)  # type: ignore[arg-type]
    except InputError as error:
        raise SpecError(error.reason, fix=error.fix, path="source.format.definition") from error


def _id_of(value: bytes | None) -> int | None:
    """Of the schema that a value says it is written by."""
    if value is None or len(value) < _HEAD_BYTES or value[0]:
        return None
    return int.from_bytes(value[1:_HEAD_BYTES], "big")


def _add(rows: Rows, items: Sequence[_Item], schema: Schema) -> None:
    columns = items[0].columns
    assert columns is not None  # noqa: S101 - the caller's
    arrays = [array_of([item.fields[field.name] for item in items], field) for field in columns]
    rows.add(pa.Table.from_arrays(arrays, schema=columns), [1] * len(items), schema)
