"""Avro schemas: made safe to read by, and their columns' types in Arrow.

A schema may come from a registry, so from outside. Refused is what lets a few bytes of a record cost a lot of memory, time
or stack: types that hold themselves, arrays of items that take no bytes, and nesting without end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import fastavro
import pyarrow as pa
from fastavro.schema import SchemaParseException, UnknownType

from dtrain.errors import InputError

MOST_DEPTH = 64
MOST_VALUES = 100_000
"""How deeply a record may be nested, and how many values it may have, arrays and maps counted as one item."""

_FIX = "use another schema, or `format: {type: raw, ...}` with a decoder of your own"

_KEPT = ("type", "name", "namespace", "fields", "items", "values", "symbols", "size", "default", "aliases")
"""Of a schema; without logical types, dates and times are the numbers that they are written as."""

_SIZES = {"null": 0, "float": 4, "double": 8}
_COLUMNS = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
    "fixed": pa.binary(),
    "enum": pa.string(),
    "map": pa.map_(pa.string(), pa.null()),
}


class AvroSchema(NamedTuple):
    """A record's schema as fastavro wants it, and the types of its fields as columns."""

    parsed: dict[str, Any]
    columns: pa.Schema


class _Measure(NamedTuple):
    """Of a type: the fewest bytes that a value takes, how deeply it is nested, and of how many values it consists."""

    num_bytes: int
    depth: int
    num_values: int


def avro_schema(definition: Mapping[str, Any]) -> AvroSchema:
    """The schema that `definition` writes.

    Raises:
        InputError: it is not an Avro record's, or not safe to read by.
    """
    named: dict[str, Any] = {}
    try:
        parsed = fastavro.parse_schema(_plain(definition), named)
        if not isinstance(parsed, dict) or parsed["type"] != "record":
            raise InputError("not the schema of a record", fix="write one of type record")
        measure = _Measurer(named).measure(parsed)
        fields = [pa.field(field["name"], _column(field["type"], named)) for field in parsed["fields"]]
    except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError, AttributeError) as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError("not an Avro schema", fix=f"correct it ({words})") from error
    except RecursionError as error:
        raise _too_deep() from error
    if measure.num_values > MOST_VALUES:
        raise InputError(f"more than {MOST_VALUES:,} values in a record are not supported", fix=_FIX)
    return AvroSchema(parsed, pa.schema(fields))


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: node[key] if key == "default" else _plain(node[key]) for key in _KEPT if key in node}


class _Measurer:
    """Measures each named type once."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._known: dict[str, _Measure] = {}
        self._open: set[str] = set()

    def measure(self, node: Any) -> _Measure:
        """Raises `InputError` where a type is not safe."""
        if isinstance(node, list):
            parts = [self.measure(branch) for branch in node]
            fewest = 1 + min((part.num_bytes for part in parts), default=0)
            return _nested(fewest, parts)
        if isinstance(node, str):
            return self._by_name(node) if node in self._named else _Measure(_SIZES.get(node, 1), 1, 1)
        kind = node["type"]
        if kind in ("record", "error"):
            return self._record(node)
        if kind == "array":
            item = self.measure(node["items"])
            if not item.num_bytes:
                raise InputError("an array of items that take no bytes is not supported", fix=_FIX)
            return _nested(1, [item])
        if kind == "map":
            return _nested(1, [self.measure(node["values"])])
        if kind == "fixed":
            return _Measure(node["size"], 1, 1)
        return self.measure(kind) if kind != "enum" else _Measure(1, 1, 1)

    def _by_name(self, name: str) -> _Measure:
        return self._known[name] if name in self._known else self.measure(self._named[name])

    def _record(self, node: Mapping[str, Any]) -> _Measure:
        name = node["name"]
        if name in self._open:
            raise InputError(f"type {name} holds itself, which is not supported", fix=_FIX)
        self._open.add(name)
        parts = [self.measure(field["type"]) for field in node["fields"]]
        self._open.remove(name)
        self._known[name] = _nested(sum(part.num_bytes for part in parts), parts)
        return self._known[name]


def _nested(num_bytes: int, parts: list[_Measure]) -> _Measure:
    depth = 1 + max((part.depth for part in parts), default=0)
    if depth > MOST_DEPTH:
        raise _too_deep()
    return _Measure(num_bytes, depth, 1 + sum(part.num_values for part in parts))


def _too_deep() -> InputError:
    return InputError(f"types nested more than {MOST_DEPTH} deep are not supported", fix=_FIX)


def _column(node: Any, named: Mapping[str, Any]) -> pa.DataType:
    """The type of a column; those that can be none are called by their names."""
    if isinstance(node, list):
        kinds = {_column(branch, named) for branch in node if branch != "null"}
        return kinds.pop() if len(kinds) == 1 else pa.struct([("union", pa.null())])
    kind = node if isinstance(node, str) else node["type"]
    if isinstance(kind, str) and kind in _COLUMNS:
        return _COLUMNS[kind]
    if kind == "array":
        return pa.list_(_column(node["items"], named))
    if kind in ("record", "error"):
        return pa.struct([("record", pa.null())])
    return _column(named[kind] if isinstance(kind, str) else kind, named)
