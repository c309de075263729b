"""What a user may declare of a column, what is refused, and that a declaration survives a manifest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dtrain import Column, Schema
from dtrain.data.schema import MAX_WORDS, check_same
from dtrain.errors import DriftError, InputError

EVERYTHING: dict[str, str | Column] = {
    "x": "float32[16]",
    "price": Column("float32", default=0.5, has_mask=True, is_finite=True),
    "country": Column("string", vocabulary=["de", "fr"], default=""),
    "kind": Column("string", vocabulary=("a", "b"), unknown="reject"),
    "user": Column("string", buckets=1000, seed=7),
    "item": Column("int64[3]", buckets=50),
    "tags": Column("string[2]", buckets=10, default="none"),
    "at": "timestamp",
    "day": Column("timestamp[s]", default=0),
    "w": Column("float64", is_weight=True),
}


def test_schema_comes_back_from_json_as_it_was() -> None:
    schema = Schema(EVERYTHING)
    written = json.loads(json.dumps(schema.to_json()))
    assert Schema(written) == schema
    assert Schema(written).arrow.equals(schema.arrow)
    check_same(written, schema.to_json(), checkpoint="c")
    assert written["x"] == "float32[16]"


def test_tensors_have_the_types_that_models_want() -> None:
    found = {f.name: (f.dtype, f.shape) for f in Schema(EVERYTHING).tensors}
    assert found == {
        "x": ("float32", (16,)),
        "price": ("float32", ()),
        "price_is_null": ("bool", ()),
        "country": ("int64", ()),
        "kind": ("int64", ()),
        "user": ("int64", ()),
        "item": ("int64", (3,)),
        "tags": ("int64", (2,)),
        "at": ("float64", ()),
        "day": ("int64", ()),
        "w": ("float64", ()),
    }
    assert Schema(EVERYTHING).weight == "w"


@pytest.mark.parametrize(("name", "count"), [("country", 3), ("kind", 2), ("user", 1000), ("item", 50), ("price", 0)])
def test_num_indices_is_the_size_of_an_embedding(name: str, count: int) -> None:
    assert Schema(EVERYTHING)[name].num_indices == count


def test_vocabulary_of_a_file_is_its_lines(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("de\nfr\n")
    from_file = Schema({"c": Column("string", vocabulary=tmp_path / "words.txt")})
    assert from_file == Schema({"c": Column("string", vocabulary=["de", "fr"])})


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("float31", "'float31' is not a type"),
        ("float32[0]", "has no numbers in it"),
        ("string", "a string is no number"),
        (Column("string", vocabulary=["a"], buckets=3), "a vocabulary and buckets"),
        (Column("int64", vocabulary=["a"]), "only strings have a vocabulary"),
        (Column("string", vocabulary=["a", "a"]), "different strings"),
        (Column("string", vocabulary=[str(i) for i in range(MAX_WORDS + 1)]), "more than 100000"),
        (Column("string", vocabulary="no-such-file.txt"), "cannot be read"),
        (Column("string", vocabulary=["a"], unknown="reject", default="b"), "'b' is no default"),
        (Column("float32", buckets=3), "only strings and integers"),
        (Column("string", buckets=-1), "-1 buckets"),
        (Column("int8", default=300), "300 is no default of int8"),
        (Column("int8", default=0.5), "0.5 is no default of int8"),
        (Column("float32", default="x"), "'x' is no default of float32"),
        (Column("bool", default=2), "2 is no default of bool"),
        (Column("float32", has_mask=True), "a mask without a default"),
        (Column("float32[2]", is_weight=True), "a weight is one number"),
        (Column("string", buckets=2, unknown="guess"), "unknown='guess'"),  # type: ignore[arg-type]
    ],
)
def test_column_that_cannot_be_is_refused_by_name(column: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"column 'c'.*{reason}"):
        Schema({"c": column})


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({}, "needs a column"),
        ({"a": Column("float32", is_weight=True), "b": Column("float32", is_weight=True)}, "'a' and 'b' are both weights"),
        ({"a": Column("float32", default=0, has_mask=True), "a_is_null": "bool"}, "'a_is_null' is a column and the mask"),
    ],
)
def test_columns_that_do_not_go_together_are_refused(columns: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Schema(columns)


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ({"x": "float32"}, "'y' is missing, was int64"),
        ({"x": "float32", "y": "int32"}, "'y' is int32, was int64"),
        ({"x": "float32", "y": "int64", "z": "bool"}, "'z' is bool, was missing"),
    ],
)
def test_features_that_changed_since_the_checkpoint_are_refused(now: dict[str, str], reason: str) -> None:
    with pytest.raises(DriftError, match=reason):
        check_same({"x": "float32", "y": "int64"}, now, checkpoint="c")
