"""The feature schema: names, types and shapes of the columns that a task trains on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import pyarrow as pa

from dtrain.errors import InputError

_TYPE = re.compile(r"^(bool|u?int8|int16|int32|int64|float16|float32|float64)(?:\[(\d+(?:,\s*\d+)*)\])?$")


@dataclass(frozen=True, slots=True)
class Field:
    """One column: `dtype` as NumPy names it, `shape` of one row (() for a number)."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in one row."""
        return prod(self.shape)

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of the column: a number, or a fixed-size list of `size` numbers."""
        item = pa.bool_() if self.dtype == "bool" else pa.type_for_alias(self.dtype)
        return pa.list_(pa.field("item", item, nullable=False), self.size) if self.shape else item

    def __str__(self) -> str:
        return self.dtype + (f"[{','.join(map(str, self.shape))}]" if self.shape else "")


class Schema:
    """The columns of a task, by name; other columns of the stream are ignored, and their order does not matter.

    Args:
        columns: name → type, as `{"carrier": "int64", "pixels": "float32[28,28]", "late": "float32"}`.

    Raises:
        InputError: a type is none of bool, int8 … int64, uint8, float16, float32, float64, with or without a shape.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        if not columns:
            raise InputError(
                "a schema needs a column", fix='write for example dtrain.Schema({"x": "float32[16]", "y": "float32"})'
            )
        self.fields = tuple(_field(name, text) for name, text in columns.items())

    @property
    def arrow(self) -> pa.Schema:
        """The schema of every block."""
        return pa.schema([pa.field(f.name, f.arrow_type, nullable=False) for f in self.fields])

    def to_json(self) -> dict[str, str]:
        """The columns as they were written."""
        return {f.name: str(f) for f in self.fields}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)

    def __repr__(self) -> str:
        return f"Schema({self.to_json()!r})"


def _field(name: str, text: str) -> Field:
    found = _TYPE.match(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise InputError(f"column {name!r}: {text!r} is not a type", fix="write for example float32, int64 or float32[28,28]")
    shape = tuple(int(part) for part in found[2].split(",")) if found[2] else ()
    if shape and prod(shape) < 1:
        raise InputError(f"column {name!r}: {text!r} has no numbers in it", fix="every part of a shape is at least 1")
    return Field(name, found[1], shape)
