"""The filter against Python's own meaning of the same expression, row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.columns import clean
from dtrain.data.filter import Filter
from dtrain.data.schema import Schema
from dtrain.errors import InputError
from dtrain.spec.expression import parse

SCHEMA = Schema(
    {
        "i": "int32",
        "small": "uint8",
        "f": "float64",
        "b": "bool",
        "x": "float32[3]",
        "pixels": "int64[2,2]",
        "carrier": {"type": "string", "vocabulary": ["AA", "UA", "DL"]},
        "hashed": {"type": "string", "buckets": 10},
    }
)
integers = st.integers(-5, 5)
rows = st.fixed_dictionaries(
    {
        "i": integers,
        "small": st.integers(0, 255),
        "f": st.sampled_from([-1.5, 0.0, 0.5, 2.0, math.inf, math.nan]),
        "b": st.booleans(),
        "x": st.lists(st.sampled_from([-1.0, 0.0, 0.5]), min_size=3, max_size=3),
        "pixels": st.lists(integers, min_size=4, max_size=4),
        "carrier": st.sampled_from(["AA", "UA", "DL", "??"]),
        "hashed": st.just("x"),
    }
)


def batch_of(values: list[dict[str, Any]]) -> pa.RecordBatch:
    types = [pa.field(f.name, f.text_type) for f in SCHEMA.fields]
    batch, bad = clean(pa.Table.from_pylist(values, schema=pa.schema(types)), SCHEMA)
    assert not bad
    return batch


def meant(text: str, row: dict[str, Any]) -> bool:
    """What Python makes of the expression for one row."""
    names = {**row, "pixels": np.array(row["pixels"]).reshape(2, 2), "f": np.float64(row["f"]), "abs": abs}
    with np.errstate(all="ignore"):
        return bool(eval(text, {"__builtins__": {}}, names))


numbers = st.sampled_from(
    ["i", "small", "f", "x[1]", "pixels[1, 0]", "3", "-2", "0.5", "abs(i)", "(i + small)", "(small * 2 - f)"]
)
comparisons = st.builds("{} {} {}".format, numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers)
memberships = st.builds("{} {} [1, -1, 2.0]".format, numbers, st.sampled_from(["in", "not in"]))
texts = st.sampled_from(
    ["carrier == 'AA'", "'UA' != carrier", "carrier in ['AA', 'DL']", "carrier not in ('UA',)", "b", "True"]
)
chains = st.builds("{} < {} <= {}".format, numbers, numbers, numbers)
leaves = comparisons | memberships | texts | chains
expressions = st.recursive(
    leaves,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner) | st.builds("not ({})".format, inner)
    ),
    max_leaves=5,
)


@given(expressions, st.lists(rows, max_size=6))
def test_filter_keeps_the_rows_that_python_would(text: str, values: list[dict[str, Any]]) -> None:
    kept = Filter(parse(text), SCHEMA)(batch_of(values))
    assert kept.dtype == bool
    assert kept.tolist() == [meant(text, row) for row in values]


@given(expressions, st.lists(rows, min_size=1, max_size=6), st.data())
def test_filter_says_the_same_of_a_row_whatever_rows_are_with_it(
    text: str, values: list[dict[str, Any]], data: st.DataObject
) -> None:
    batch, found = batch_of(values), Filter(parse(text), SCHEMA)
    middle = data.draw(st.integers(0, len(values)))
    parts = [found(batch.slice(0, middle)), found(batch.slice(middle))]
    assert np.concatenate(parts).tolist() == found(batch).tolist()


def test_filter_division_by_zero_and_overflow_raise_nothing() -> None:
    batch = batch_of(
        [{"i": 0, "small": 0, "f": 0.0, "b": True, "x": [0, 0, 0], "pixels": [2**62] * 4, "carrier": "AA", "hashed": ""}]
    )
    assert Filter(parse("1 / i > 1e300 and f / small != 0 and pixels[0, 0] * 4 == 0"), SCHEMA)(batch).tolist() == [True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("price > 0", "'price' is no column of the task"),
        ("i", "'i' is neither true nor false"),
        ("x > 1", r"'x' is float32\[3\], not one number; name an element, as x\[0\]"),
        ("pixels[1] > 1", "has no element"),
        ("pixels[2, 0] > 1", "has no element"),
        ("i[0] > 1", "has no element"),
        ("carrier > 3", "'carrier' is a text, not a number"),
        ("carrier == 'XX'", "a vocabulary without 'XX'"),
        ("hashed == 'XX'", "is hashed"),
        ("i == 'XX'", "is int32, not a text"),
    ],
)
def test_filter_that_does_not_fit_the_columns_is_refused_before_any_row(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Filter(parse(text), SCHEMA)
