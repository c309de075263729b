"""The job file's section on what becomes of rows between the stream and the task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator

from dtrain.errors import SpecError
from dtrain.spec.durations import problem
from dtrain.spec.expression import parse
from dtrain.spec.section import Section

FUNCTION_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
MESSAGE_KEY = "@key"

_COLUMN: dict[str, tuple[tuple[type, ...], str]] = {
    "type": ((str,), "a type, as int64"),
    "default": ((bool, int, float, str), "a number or a text"),
    "has_mask": ((bool,), "true or false"),
    "is_finite": ((bool,), "true or false"),
    "vocabulary": ((list, str), "a list of texts, or the path of a file with one word a line"),
    "unknown": ((str,), "zero or reject"),
    "buckets": ((int,), "a whole number"),
    "seed": ((int,), "a whole number"),
    "is_weight": ((bool,), "true or false"),
}
"""What may be said of a column: the fields of `dtrain.Column`, which looks at the rest."""


class DeduplicateSpec(Section):
    """Which rows are the same."""

    by: str = Field(
        min_length=1,
        description="Column of whole numbers or texts that says which rows are the same; @key for the message's key.",
    )
    window: int = Field(
        ge=1, le=2_000_000, description="Rows of the partition, bad ones counted, in which a key is not trained twice."
    )


class TransformSpec(Section):
    """What becomes of decoded rows before they are trained: filter, then deduplicate, then map."""

    columns: dict[str, str | dict[str, Any]] = Field(
        default_factory=dict,
        description="Columns of the stream, with their types, that the task has not: for filter, deduplicate and map. With a map, all that it gets.",
    )
    filter: str = Field(
        "", description="Rows for which this does not hold are not trained, as: price > 0 and carrier in ['AA', 'UA']."
    )
    deduplicate: Literal["never"] | DeduplicateSpec = Field(
        "never", description="Whether a row is left out whose key was seen shortly before, in its partition."
    )
    map: Annotated[str, Field(pattern=rf"^$|{FUNCTION_PATTERN}")] = Field(
        "",
        description="module:function in `code`, from a pyarrow.RecordBatch to one of the task's columns with the same rows, each by itself.",
    )

    @field_validator("filter")
    @classmethod
    def _filter_is_an_expression(cls, value: str) -> str:
        if value:
            parse(value)
        return value

    @field_validator("columns")
    @classmethod
    def _columns_are_columns(cls, value: dict[str, str | dict[str, Any]]) -> dict[str, str | dict[str, Any]]:
        for name, column in value.items():
            _check_column(f"transform.columns.{name}", {"type": column} if isinstance(column, str) else column)
        return value

    def settled(self, folder: Path) -> Self:
        """The same with the words that are in files: they are a part of the job."""
        columns = {name: _settled(name, column, folder) for name, column in self.columns.items()}
        return self.model_copy(update={"columns": columns})

    @property
    def is_empty(self) -> bool:
        """Whether rows stay as they are."""
        return not self.filter and not self.map and self.deduplicate == "never"


def _check_column(path: str, column: dict[str, Any]) -> None:
    if "type" not in column:
        raise problem("has no type", fix="add `type: ...`, as {type: int64}", path=path)
    for key, given in column.items():
        if key not in _COLUMN:
            raise problem(f"{key!r} is nothing that a column has", fix=f"possible: {', '.join(_COLUMN)}", path=f"{path}.{key}")
        kinds, words = _COLUMN[key]
        is_wrong = type(given) not in kinds or (isinstance(given, list) and not all(isinstance(word, str) for word in given))
        if is_wrong:
            raise problem(f"is not {words}", fix=f"write {words}", path=f"{path}.{key}")


def _settled(name: str, column: str | dict[str, Any], folder: Path) -> str | dict[str, Any]:
    if isinstance(column, str) or not isinstance(column.get("vocabulary"), str):
        return column
    try:
        words = (folder / Path(column["vocabulary"]).expanduser()).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fix, path = "name a UTF-8 file with one word a line, from the job file's folder", f"transform.columns.{name}.vocabulary"
        raise SpecError("cannot be read", fix=fix, path=path) from error
    return column | {"vocabulary": words}
