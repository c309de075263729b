"""The feature schema: what the columns of a stream are, and what tensors become of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from dtrain.data.hashing import buckets_of_integers, buckets_of_texts
from dtrain.errors import DriftError, InputError

_TYPE = re.compile(
    r"^(bool|u?int8|int16|int32|int64|float16|float32|float64|string|timestamp(?:\[(?:s|ms|us|ns)\])?)(?:\[(\d+(?:,\s*\d+)*)\])?$"
)
MAX_WORDS = 100_000
"""Most words of a vocabulary: they are in every checkpoint, so that a replay needs nothing else."""

MASK = "_is_null"
"""What follows a column's name in that of its mask."""


@dataclass(frozen=True, slots=True)
class Column:
    """How a column of the stream becomes a tensor, where its type alone does not say it.

    Args:
        type: what the stream holds: a number as NumPy names it, `string`, or `timestamp`, with a shape or without, as
            `float32[28,28]`. A `timestamp` (of Arrow, a date, or a text after ISO 8601) becomes float64 seconds since 1970,
            UTC; `timestamp[s]`, `[ms]`, `[us]`, `[ns]` become int64 in this unit, rounded down.
        default: what stands for null and for a column that is missing; without one such a row is bad. For strings a string.
        has_mask: a further bool tensor, `NAME_is_null`, says where the default stands.
        is_finite: a row with NaN or infinity in this column is bad.
        vocabulary: of a string: its words, or a file with one word a line. The tensor holds int64 indices.
        unknown: what a string is that the vocabulary has not. `zero`: index 0, and the words count from 1. `reject`: a bad
            row, and the words count from 0.
        buckets: of a string or an integer: the tensor holds `hash(value) % buckets`, int64, with a hash that never changes
            (`dtrain/data/hashing.py`).
        seed: of that hash.
        is_weight: the loss of a row is multiplied by this number; a row whose weight is negative, NaN or infinite is bad.
    """

    type: str
    default: float | str | None = None
    has_mask: bool = False
    is_finite: bool = False
    vocabulary: Sequence[str] | Path = ()
    unknown: Literal["zero", "reject"] = "zero"
    buckets: int = 0
    seed: int = 0
    is_weight: bool = False

    def to_json(self) -> str | dict[str, Any]:
        """The type alone where it says all; else what differs from the defaults, by name."""
        known = {item.name: item.default for item in fields(self)}
        value = {name: given for name, given in asdict(self).items() if given != known[name] or name == "type"}
        if self.vocabulary:
            value["vocabulary"] = list(self.vocabulary)  # type: ignore[arg-type]
        return self.type if len(value) == 1 else value


@dataclass(frozen=True, slots=True)
class Field:
    """One column: `dtype` of its tensor as NumPy names it, `shape` of one row (() for a number).

    Args:
        name: in the stream and in the batch.
        dtype: of the tensor.
        shape: of one row.
        column: as it was declared.
        kind: what the stream holds.
        fill: the tensor's value for null and for a column that is missing; None where that is a bad row.
        words: of the vocabulary, as Arrow has them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    column: Column
    kind: Literal["number", "string", "timestamp"]
    fill: float | None = None
    words: pa.Array | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Numbers in one row."""
        return prod(self.shape)

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of the column in a block: a number, or a fixed-size list of `size` numbers."""
        return _column_type(self.dtype, self.size if self.shape else 0)

    @property
    def item_type(self) -> pa.DataType:
        """The Arrow type of one number in a block."""
        return _arrow(self.dtype)

    @property
    def text_type(self) -> pa.DataType:
        """What a reader of text, JSON for one, parses the column as; a shape is written as a flat list."""
        item = pa.string() if self.kind != "number" else _arrow(self.source_dtype)
        item = pa.float64() if pa.types.is_floating(item) else item  # what is too big for fewer bits can then be told
        return pa.list_(item) if self.shape else item

    @property
    def source_dtype(self) -> str:
        """The number that the stream holds; the tensor's, unless it is hashed."""
        return self.column.type.partition("[")[0] if self.kind == "number" else self.dtype

    @property
    def num_indices(self) -> int:
        """How many indices there are, all below this: the rows of an embedding. 0 where the tensor is no index."""
        if self.words is not None:
            return len(self.words) + (self.column.unknown == "zero")
        return self.column.buckets

    @property
    def mask(self) -> Field | None:
        """The column that says where the default stands."""
        return Field(self.name + MASK, "bool", (), Column("bool"), "number") if self.column.has_mask else None

    def __str__(self) -> str:
        return self.column.type


class Schema:
    """The columns of a task, by name; other columns of the stream are ignored, and their order does not matter.

    Args:
        columns: name → type or `Column`, as `{"pixels": "float32[28,28]", "country": dtrain.Column("string", buckets=1000)}`.

    Raises:
        InputError: a column cannot be what it says; names it.
    """

    def __init__(self, columns: Mapping[str, str | Column | Mapping[str, Any]]) -> None:
        if not columns:
            raise InputError(
                "a schema needs a column", fix='write for example dtrain.Schema({"x": "float32[16]", "y": "float32"})'
            )
        declared = [_field(name, column) for name, column in columns.items()]
        self.fields = tuple(sorted(declared, key=lambda f: f.name))
        """The columns of the stream, by name: of several faults of a row the first is told, and a manifest keeps no other order."""
        self.tensors = tuple(tensor for f in declared for tensor in (f, f.mask) if tensor is not None)
        """The columns of blocks and batches, as they were declared, masks behind theirs."""
        names = [tensor.name for tensor in self.tensors]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"{twice[0]!r} is a column and the mask of another", fix="give the column another name")
        weights = [f.name for f in self.fields if f.column.is_weight]
        if len(weights) > 1:
            raise InputError(f"{' and '.join(map(repr, weights))} are both weights", fix="set `is_weight` of one column")
        self.weight = weights[0] if weights else ""
        """The column that the loss of a row is multiplied by; empty for none."""

    @cached_property
    def arrow(self) -> pa.Schema:
        """The schema of every block."""
        return pa.schema([pa.field(f.name, f.arrow_type, nullable=False) for f in self.tensors])

    def to_json(self) -> dict[str, Any]:
        """The columns as they were declared, words of files included: a `Schema` of it is equal to this one."""
        return {t.name: t.column.to_json() for t in self.tensors if t in self.fields}

    def __getitem__(self, name: str) -> Field:
        """The column called `name`."""
        return next(f for f in self.fields if f.name == name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)

    def __repr__(self) -> str:
        return f"Schema({self.to_json()!r})"


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], *, checkpoint: str) -> None:
    """The task's columns are those that the job began with; both as `Schema.to_json`.

    Why: which rows are good depends on them, so a log over two schemas could not be replayed.

    Raises:
        DriftError: they are not; names the columns.
    """
    names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    if names:
        what = ", ".join(f"{name!r} is {_short(now.get(name))}, was {_short(then.get(name))}" for name in names[:3])
        raise DriftError(
            f"the task's features are not those of checkpoint {checkpoint}: {what}",
            fix="restore them, or submit a new job",
        )


def _short(column: object) -> str:
    text = "missing" if column is None else str(column)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _field(name: str, given: str | Column | Mapping[str, Any]) -> Field:
    column = given if isinstance(given, Column) else Column(**given) if isinstance(given, Mapping) else Column(given)
    found = _TYPE.match(column.type.strip()) if isinstance(column.type, str) else None
    if found is None:
        raise InputError(
            f"column {name!r}: {column.type!r} is not a type",
            fix="write for example float32, int64, float32[28,28], string or timestamp",
        )
    shape = tuple(int(part) for part in found[2].split(",")) if found[2] else ()
    if shape and prod(shape) < 1:
        raise InputError(f"column {name!r}: {column.type!r} has no numbers in it", fix="every part of a shape is at least 1")
    written = found[1]
    words = _words(name, column.vocabulary)
    kind, dtype = _kind(written, is_index=bool(words) or column.buckets > 0)
    column = Column(
        written + (f"[{','.join(map(str, shape))}]" if shape else ""),
        **{item.name: getattr(column, item.name) for item in fields(Column) if item.name not in ("type", "vocabulary")},
        vocabulary=words,
    )
    if problem := _problem(column, kind, written, shape):
        raise InputError(f"column {name!r}: {problem[0]}", fix=problem[1])
    bare = Field(name, dtype, shape, column, kind, None, pa.array(words, pa.large_string()) if words else None)
    return bare if column.default is None else Field(name, dtype, shape, column, kind, _fill(bare), bare.words)


def _kind(written: str, *, is_index: bool) -> tuple[Literal["number", "string", "timestamp"], str]:
    """What the stream holds, and the tensor's dtype."""
    if written.startswith("timestamp"):
        return "timestamp", "int64" if "[" in written else "float64"
    if written == "string":
        return "string", "int64"
    return "number", "int64" if is_index else written


def _words(name: str, given: Sequence[str] | Path) -> tuple[str, ...]:
    """The vocabulary, read if it is a file."""
    if isinstance(given, str | Path):
        try:
            given = Path(given).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"column {name!r}: its vocabulary cannot be read: {error}", fix="name a UTF-8 file with one word a line"
            ) from error
    words = tuple(given)
    if not all(isinstance(word, str) for word in words) or len(set(words)) < len(words):
        raise InputError(f"column {name!r}: a vocabulary is of different strings", fix="leave out what is there twice")
    if len(words) > MAX_WORDS:
        raise InputError(f"column {name!r}: {len(words)} words are more than {MAX_WORDS}", fix="use `buckets` in its place")
    return words


def _problem(column: Column, kind: str, written: str, shape: tuple[int, ...]) -> tuple[str, str] | None:
    """What is wrong with the declaration, and what to do about it."""
    is_integer = "int" in written
    is_index = bool(column.vocabulary) or column.buckets != 0
    rules = (
        (column.vocabulary and column.buckets, "it has a vocabulary and buckets", "leave one of them out"),
        (column.vocabulary and kind != "string", "only strings have a vocabulary", 'write Column("string", vocabulary=...)'),
        (column.unknown not in ("zero", "reject"), f"unknown={column.unknown!r}", "write zero or reject"),
        (not 0 <= column.buckets < 2**63, f"{column.buckets} buckets", "write a number of buckets from 1 on"),
        (not 0 <= column.seed < 2**63, f"seed {column.seed}", "write a seed from 0 on"),
        (column.buckets and kind != "string" and not is_integer, "only strings and integers have buckets", "leave them out"),
        (kind == "string" and not is_index, "a string is no number", "give it a vocabulary, or buckets to hash it into"),
        (column.has_mask and column.default is None, "a mask without a default is never set", "give it a default"),
        (column.is_weight and (kind != "number" or shape or is_index or written == "bool"), "a weight is one number a row", ""),
    )
    return next(((text, fix) for is_wrong, text, fix in rules if is_wrong), None)


def _fill(bare: Field) -> float:
    """The tensor's value of a column's default."""
    default, column = bare.column.default, bare.column
    wanted = str if bare.kind == "string" else (bool, int, float)
    if isinstance(default, wanted):
        if bare.words is not None:
            index: int = bare.words.index(default).as_py()
            if index >= 0 or column.unknown == "zero":
                return index + (column.unknown == "zero")
        elif column.buckets:
            return int(_bucket_of(default, column))
        elif not isinstance(default, str) and _holds(bare.dtype, float(default)):
            return default
    raise InputError(f"column {bare.name!r}: {default!r} is no default of {bare}", fix="write a value that the column can have")


def _bucket_of(value: object, column: Column) -> int:
    if isinstance(value, str):
        encoded = pa.array([value.encode()], pa.large_binary())
        return int(buckets_of_texts(encoded, num_buckets=column.buckets, seed=column.seed)[0])
    return int(buckets_of_integers(np.array([value], np.int64), num_buckets=column.buckets, seed=column.seed)[0])


def _holds(dtype: str, value: float) -> bool:
    """Whether a tensor of `dtype` can hold `value`."""
    if dtype == "bool":
        return value in (0, 1)
    if "float" in dtype:
        return not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    return value.is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


@lru_cache
def _column_type(dtype: str, size: int) -> pa.DataType:
    """Of `size` numbers a row; 0 for one without a list."""
    item = _arrow(dtype)
    return pa.list_(pa.field("item", item, nullable=False), size) if size else item


@lru_cache
def _arrow(dtype: str) -> pa.DataType:
    return pa.bool_() if dtype == "bool" else pa.type_for_alias(dtype)
