"""Guesses: what the values of a topic are, and what schema they could be trained with. For people, who correct them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from dtrain.data.block import RawRecord
from dtrain.data.schema import Schema
from dtrain.errors import InputError

MOST_VALUES = 300
"""Rows whose values are looked at; more are only counted."""

LABELS = ("label", "target", "y", "clicked", "click", "outcome", "class", "is_fraud", "late")
"""Names that a column to be predicted often has."""

_FORMATS = {"arrow stream": "arrow", "arrow file": "arrow", "json object": "json", "json array": "json", "ndjson": "json"}
"""Kinds that a format alone is enough to read."""

_DTYPES = {
    "halffloat": "float16",
    "double": "float32",
    "float": "float32",
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "int64",
}
_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, RecursionError)
"""What readers raise for bytes that only begin like theirs."""


@dataclass(frozen=True, slots=True)
class Column:
    """A name that was seen in rows.

    Args:
        name: its name.
        found: what its values are, in words.
        type: the type to declare in a `dtrain.Schema`; empty where no type fits.
        num_rows: rows that have it, with a value.
        is_whole: every row that was looked at has it, with a value.
        is_binary: all of its values are 0 and 1, and both were seen.
        example: the first of its values.
    """

    name: str
    found: str
    type: str
    num_rows: int
    is_whole: bool
    is_binary: bool
    example: Any

    @property
    def is_text(self) -> bool:
        """Whether its values are texts, which are hashed into buckets to be trained with."""
        return self.type == "string"

    @property
    def is_usable(self) -> bool:
        """Whether every row that was looked at could be trained with it."""
        return bool(self.type) and self.is_whole


@dataclass(frozen=True, slots=True)
class Guess:
    """What some records are.

    Args:
        kinds: what a value is, in words → of how many records; commonest first.
        num_records: that were looked at, those without a value too.
        num_rows: in records of the commonest kind.
        num_bytes: of keys and values.
        has_keys: some record has a key.
        columns: in the order in which they were seen.
        rows: some rows of the commonest kind, newest last.
    """

    kinds: Mapping[str, int]
    num_records: int
    num_rows: int
    num_bytes: int
    has_keys: bool
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def kind(self) -> str:
        """The commonest; empty when there is no record."""
        return next(iter(self.kinds), "")

    @property
    def format(self) -> str:
        """What to write as `source.format`; empty where this dtrain does not read such values."""
        return _FORMATS.get(self.kind, "")

    @property
    def rows_a_record(self) -> float:
        """Of the commonest kind."""
        return self.num_rows / max(1, self.kinds.get(self.kind, 0))

    @property
    def label(self) -> str:
        """The column that the others could predict: one with a name for it, or the last number; empty without."""
        numbers = [column.name for column in self.columns if column.is_usable and not column.is_text and "[" not in column.type]
        named = [name for name in numbers if name.lower() in LABELS]
        return (named or numbers[::-1] or [""])[0]


def guess(records: Iterable[RawRecord]) -> Guess:
    """What `records` are; never raises for what is in them."""
    records = list(records)
    opened = [open_value(record.value) for record in records]
    kinds = dict(Counter(value.kind for value in opened).most_common())
    ours = [value for value in opened if value.kind == next(iter(kinds))]
    rows: list[Mapping[str, Any]] = []
    for value in reversed(ours):
        rows[:0] = value.rows[-(MOST_VALUES - len(rows)) :] if len(rows) < MOST_VALUES else ()
    declared = {name: kind for value in ours for name, kind in value.declared.items()}
    names = dict.fromkeys(name for row in rows for name in row)
    return Guess(
        kinds=kinds,
        num_records=len(records),
        num_rows=sum(value.num_rows for value in ours),
        num_bytes=sum(len(record.key or b"") + len(record.value or b"") for record in records),
        has_keys=any(record.key is not None for record in records),
        columns=tuple(_column(name, rows, declared.get(name)) for name in names),
        rows=tuple(rows),
    )


class Opened(NamedTuple):
    """A value: what it is, how many rows it holds, up to `MOST_VALUES` of them, and their columns' types where it declares them."""

    kind: str
    num_rows: int = 0
    rows: Sequence[Mapping[str, Any]] = ()
    declared: Mapping[str, pa.DataType] = {}


def open_value(value: bytes | None) -> Opened:
    """What `value` is; never raises for what is in it."""
    if value is None:
        return Opened("no value")
    for begins, kind, reader in _MAGIC:
        if value.startswith(begins):
            try:
                return reader(kind, value)
            except _ERRORS:
                break
    try:
        return _open_text(value.decode())
    except UnicodeDecodeError:
        return Opened("raw bytes", 1)


def _open_arrow(kind: str, value: bytes) -> Opened:
    table = (pa.ipc.open_file if kind == "arrow file" else pa.ipc.open_stream)(pa.BufferReader(value)).read_all()
    table.validate(full=True)
    return Opened(
        kind,
        table.num_rows,
        table.slice(0, MOST_VALUES).to_pylist(),
        dict(zip(table.schema.names, table.schema.types, strict=True)),
    )


def _open_registered(kind: str, value: bytes) -> Opened:
    if len(value) < 6:
        raise ValueError("too short for a schema's number")
    return Opened(f"{kind} {int.from_bytes(value[1:5])}", 1)


def _named(kind: str, value: bytes) -> Opened:  # noqa: ARG001 - as the other readers
    return Opened(kind, 1)


_MAGIC = (
    (b"\xff\xff\xff\xff", "arrow stream", _open_arrow),
    (b"ARROW1", "arrow file", _open_arrow),
    (b"Obj\x01", "avro file", _named),
    (b"PAR1", "parquet file", _named),
    (b"\x1f\x8b", "gzip", _named),
    (b"\0", "avro (or other) of a schema registry, schema", _open_registered),
)


def _open_text(text: str) -> Opened:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _open_lines(text)
    if isinstance(found, dict):
        return Opened("json object", 1, [found])
    if isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
        return Opened("json array", len(found), found[:MOST_VALUES])
    return Opened("json, not of objects", 1)


def _open_lines(text: str) -> Opened:
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return Opened("text" if text.isprintable() or text.strip() else "raw bytes", 1)
    if rows and all(isinstance(row, dict) for row in rows):
        return Opened("ndjson", len(rows), rows[:MOST_VALUES])
    return Opened("text", 1)


def _column(name: str, rows: Sequence[Mapping[str, Any]], declared: pa.DataType | None) -> Column:
    values = [value for row in rows if (value := row.get(name)) is not None]
    kinds = _merged(Counter(_kind(value) for value in values))
    found = " or ".join(kind for kind, _ in kinds.most_common(3)) or "nothing"
    fits = len(kinds) == 1 and (found == "text" or not found.startswith(_WORDS))
    return Column(
        name=name,
        found=found if declared is None else str(declared),
        type=_declared(found, declared) if fits else "",
        num_rows=len(values),
        is_whole=len(values) == len(rows),
        is_binary=fits and "[" not in found and set(values) == {0, 1},
        example=values[0] if values else None,
    )


_WORDS = ("text", "object", "list", "other", "nothing")
"""Kinds that no type of a schema fits, but text alone."""


def _kind(value: object) -> str:
    """A type of a schema, or one of `_WORDS`."""
    match value:
        case bool():
            return "bool"
        case int():
            return "int64" if -(2**63) <= value < 2**63 else "other"
        case float():
            return "float32"
        case str():
            return "text"
        case Mapping():
            return "object"
        case list():
            return _list_kind(value)
    return "other"


def _list_kind(value: list[object]) -> str:
    """`float32[3]`, `int64[2,3]`; lists of other things, or of unequal ones, are a list of something."""
    kinds = _merged(Counter(_kind(item) for item in value))
    if len(kinds) != 1:
        return "list of different things" if kinds else "list of nothing"
    (kind,) = kinds
    if kind.startswith(_WORDS):
        return f"list of {kind}"
    inner, _, shape = kind.partition("[")
    return f"{inner}[{len(value)}{',' + shape if shape else ']'}"


def _merged(kinds: Counter[str]) -> Counter[str]:
    """The same; whole numbers among others are such, too."""
    floats = {kind.replace("int64", "float32") for kind in kinds}
    return Counter({floats.pop(): kinds.total()}) if len(kinds) > 1 and len(floats) == 1 else kinds


def _declared(found: str, declared: pa.DataType | None) -> str:
    """The type for a column whose values were found to be `found`, and which may have said what they are; empty where none fits."""
    if found == "text":
        return "string"
    if declared is None:
        return found
    leaf = declared
    while pa.types.is_list(leaf) or pa.types.is_large_list(leaf) or pa.types.is_fixed_size_list(leaf):
        leaf = leaf.value_type
    leaf = leaf.value_type if pa.types.is_dictionary(leaf) else leaf
    shape = found[found.find("[") :] if "[" in found else ""
    kind = _DTYPES.get(str(leaf), str(leaf)) + shape
    try:
        Schema({"x": kind})
    except InputError:
        return ""
    return kind
