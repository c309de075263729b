"""From what a stream holds to the numbers of tensors: what is accepted, what is a bad row, and that neighbours do not matter."""

from __future__ import annotations

import datetime as dt
import json
import math
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain import Column, Schema
from dtrain.data import values
from dtrain.data.block import Block
from dtrain.data.csv_messages import read_csv
from dtrain.data.json_messages import read_json
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition
from dtrain.stream.memory import MemorySource
from tests.support.messages import arrow, records

INF, NAN = math.inf, math.nan
NOON = dt.datetime(2024, 5, 17, 12, 0, 0, 123456, tzinfo=dt.UTC)
NOON_S = NOON.timestamp()


def decoded(value: bytes, columns: dict[str, Any], *, form: str = "arrow") -> Block:
    source = MemorySource(SourceSpec(topic="t", bootstrap="h:1", format=form), {})  # type: ignore[arg-type]
    block = source.decode(records([value])[0], partition=Partition("t", 0), schema=Schema(columns))
    assert block.batch.schema.equals(Schema(columns).arrow)
    assert all(column.null_count == 0 for column in block.batch.columns)
    return block


def made(values: Any, column: str | Column, kind: pa.DataType | None = None) -> list[Any]:
    """What becomes of each value of a column: its number, or the reason why the row is bad."""
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
    block = decoded(arrow({"row": range(len(array)), "c": array}), {"row": "int64", "c": column})
    found: list[Any] = [None] * len(array)
    for row, number in zip(block.batch["row"].to_pylist(), block.batch["c"].to_pylist(), strict=True):
        found[row] = number
    for reject in block.meta.rejects:
        found[reject.row] = reject.reason.removeprefix("column 'c'").removeprefix(": ").strip()
    return found


@pytest.mark.parametrize(
    ("kind", "column", "values", "expected"),
    [
        (pa.int8(), "int32", [1, -128], [1, -128]),
        (pa.float32(), "float64", [0.5, -INF], [0.5, -INF]),
        (pa.int32(), "float64", [2**31 - 1, 1], [2.0**31 - 1, 1.0]),
        (pa.bool_(), "float32", [True, False], [1.0, 0.0]),
        (pa.int64(), "int8", [127, 128, -128, -129], [127, "a int64 does not fit int8", -128, "a int64 does not fit int8"]),
        (pa.uint64(), "int64", [2**63 - 1, 2**63], [2**63 - 1, "a uint64 does not fit int64"]),
        (pa.int64(), "uint8", [255, -1], [255, "a int64 does not fit uint8"]),
        (pa.int64(), "float32", [2**24, 2**24 + 1, -(2**24) - 1], [2.0**24, *["a int64 does not fit float32"] * 2]),
        (pa.int64(), "float64", [2**53, 2**53 + 1, -(2**53) - 1], [2.0**53, *["a int64 does not fit float64"] * 2]),
        (pa.uint64(), "float64", [2**53, 2**64 - 1], [2.0**53, "a uint64 does not fit float64"]),
        (
            pa.float64(),
            "float32",
            [0.1, 1e39, INF, -1e39],
            [pytest.approx(0.1), "a double does not fit float32", INF, "a double does not fit float32"],
        ),
        (pa.float64(), "int64", [3.0, 3.5, NAN, INF, 2.0**63, -(2.0**63)], [3, *["a double does not fit int64"] * 4, -(2**63)]),
        (pa.float16(), "int8", [100.0, 1000.0, -INF], [100, *["a halffloat does not fit int8"] * 2]),
        (pa.decimal128(20, 2), "float32", [Decimal("1.25"), Decimal("-3")], [1.25, -3.0]),
        (
            pa.decimal128(20, 2),
            "int32",
            [Decimal("7.00"), Decimal("7.01"), Decimal(2**40)],
            [7, *["a decimal128(20, 2) does not fit int32"] * 2],
        ),
        (
            pa.decimal128(30, 0),
            "int64",
            [Decimal(2**62 + 1), Decimal(2**64)],
            [2**62 + 1, "a decimal128(30, 0) does not fit int64"],
        ),
    ],
)
def test_number_that_fits_is_taken_and_another_is_a_bad_row(
    kind: pa.DataType, column: str, values: list[Any], expected: list[Any]
) -> None:
    assert made(values, column, kind) == expected


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["de", "xx", "fr", "", "de"]),
        pa.array(["de", "xx", "fr", "", "de"], pa.large_string()),
        pa.array(["de", "xx", "fr", "", "de"], pa.string_view()),
        pa.array(["de", "xx", "fr", "", "de"]).dictionary_encode(),
    ],
)
def test_word_is_its_index_whatever_kind_of_text_it_is(array: pa.Array) -> None:
    assert made(array, Column("string", vocabulary=["de", "fr"])) == [1, 0, 2, 0, 1]
    unknown = "a string is not in the vocabulary"
    assert made(array, Column("string", vocabulary=["de", "fr"], unknown="reject")) == [0, unknown, 1, unknown, 0]


def test_category_is_the_same_bucket_whatever_it_is_written_as() -> None:
    texts = ["a", "Zürich", "x" * 40, ""]
    column = Column("string", buckets=10**6)
    expected = made(texts, column)
    assert len(set(expected)) == 4
    for array in (
        pa.array(texts, pa.large_string()),
        pa.array(texts).dictionary_encode(),
        pa.array([t.encode() for t in texts]),
    ):
        assert made(array, column) == expected
    assert made([5, -1], Column("int64", buckets=10**6), pa.int8()) == made([5, -1], Column("int64", buckets=10**6), pa.int64())
    assert made(["a" * 4096, "a" * 4097], column)[1] == "a category is longer than 4096 bytes"


@pytest.mark.parametrize(
    "array",
    [
        *(pa.array([NOON], pa.timestamp(unit, zone)) for unit in ("us", "ns") for zone in (None, "UTC", "America/New_York")),
        pa.array(["2024-05-17T12:00:00.123456Z"]),
        pa.array(["2024-05-17 12:00:00.123456"]),
        pa.array(["2024-05-17T14:00:00.123456+02:00"], pa.large_string()),
        pa.array(["2024-05-17T12:00:00.123456000Z"]),
    ],
)
def test_time_is_the_same_number_whatever_it_is_written_as(array: pa.Array) -> None:
    assert made(array, "timestamp") == [NOON_S]
    assert made(array, "timestamp[s]") == [int(NOON_S)]
    assert made(array, "timestamp[ms]") == [int(NOON_S) * 1000 + 123]
    assert made(array, "timestamp[us]") == [int(NOON_S) * 10**6 + 123456]
    assert made(array, "timestamp[ns]") == [int(NOON_S) * 10**9 + 123456000]


def test_times_before_1970_and_dates_are_rounded_down() -> None:
    before = dt.datetime(1969, 12, 31, 23, 59, 59, 500_000)
    assert made([before], "timestamp[s]", pa.timestamp("ms")) == [-1]
    assert made([before], "timestamp", pa.timestamp("ms")) == [-0.5]
    assert made([dt.date(1970, 1, 3)], "timestamp") == [2 * 86400.0]
    assert made([dt.date(1970, 1, 3)], "timestamp[s]", pa.date64()) == [2 * 86400]


def test_text_that_is_no_time_is_a_bad_row_alone() -> None:
    texts = ["2024-05-17T12:00:00Z", "soon", "2024-05-17", "2024-02-30", "2024-05-17T12:00:00.123456789Z", ""]
    bad = "a string is not timestamp[s]"
    noon = int(NOON_S)
    assert made(texts, "timestamp[s]") == [noon, bad, noon - 43200, bad, noon, bad]
    assert made(["1000-01-01", "2024-05-17"], "timestamp[ns]") == ["a string is not timestamp[ns]", (noon - 43200) * 10**9]


def test_null_and_missing_give_the_default_and_the_mask_says_so() -> None:
    columns = {
        "x": Column("float32", default=-1, has_mask=True),
        "v": Column("float32[2]", default=0.5, has_mask=True),
        "w": Column("string", vocabulary=["a"], default="a"),
        "t": Column("timestamp", default=0),
        "gone": Column("int64", default=7, has_mask=True),
    }
    table = {
        "x": pa.array([1.0, None, 3.0]),
        "v": pa.array([None, [1.0, None], [1.0, 2.0]], pa.list_(pa.float32())),
        "w": pa.array([None, "a", "b"]),
        "t": pa.nulls(3),
    }
    assert decoded(arrow(table), columns).batch.to_pydict() == {
        "x": [1.0, -1.0, 3.0],
        "x_is_null": [False, True, False],
        "v": [[0.5, 0.5], [1.0, 0.5], [1.0, 2.0]],
        "v_is_null": [True, True, False],
        "w": [1, 1, 0],
        "t": [0.0, 0.0, 0.0],
        "gone": [7, 7, 7],
        "gone_is_null": [True, True, True],
    }


def test_null_in_a_bad_row_and_bad_rows_among_nulls_are_told_apart() -> None:
    columns = {"x": Column("int8", default=0), "y": "int64"}
    table = {"x": pa.array([None, 1000, 3, None]), "y": pa.array([1, 2, None, 4])}
    block = decoded(arrow(table), columns)
    assert [(r.row, r.reason) for r in block.meta.rejects] == [
        (1, "column 'x': a int64 does not fit int8"),
        (2, "column 'y' is null"),
    ]
    assert block.batch.to_pydict() == {"x": [0, 0], "y": [1, 4]}


def test_message_with_none_of_the_columns_is_bad_although_all_have_defaults() -> None:
    block = decoded(arrow({"z": [1, 2]}), {"x": Column("int8", default=0)})
    assert [(r.row, r.reason) for r in block.meta.rejects] == [(0, "column 'x' is missing, and every other")]


def test_defaults_for_a_column_that_says_it_is_endless_take_no_memory() -> None:
    nothing = pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])
    value = arrow(pa.Table.from_batches([pa.RecordBatch.from_arrays([nothing, nothing], names=["x", "y"])]))
    block = decoded(value, {"x": Column("float32", default=0), "y": Column("float32", default=0)})
    assert [r.row for r in block.meta.rejects] == [0]


def test_weight_must_be_finite_and_not_negative() -> None:
    column = Column("float32", is_weight=True)
    assert made([0.0, 2.0, -1.0, NAN], column) == [0.0, 2.0, "a weight is negative", "is NaN or infinite"]
    assert made([NAN, 1.0], Column("float32", is_finite=True)) == ["is NaN or infinite", 1.0]


def test_json_holds_the_same_columns() -> None:
    columns: dict[str, Any] = {
        "c": Column("string", vocabulary=["de"], default=""),
        "u": Column("string", buckets=100),
        "i": Column("int64", buckets=100),
        "t": "timestamp",
        "x": Column("float32[2]", default=0, has_mask=True),
    }
    row = {"c": "de", "u": "me", "i": 3, "t": "2024-05-17T12:00:00.123456Z", "x": None}
    block = decoded(json.dumps(row).encode(), columns, form="json")
    (u,), (i,) = made(["me"], columns["u"]), made([3], columns["i"])
    assert block.batch.to_pylist() == [{"c": 1, "u": u, "i": i, "t": NOON_S, "x": [0.0, 0.0], "x_is_null": True}]
    for name, bad in (("c", 1), ("u", 1.5), ("i", "3"), ("t", 5), ("t", "soon")):
        (reject,) = decoded(json.dumps(row | {name: bad}).encode(), columns, form="json").meta.rejects
        assert f"column '{name}'" in reject.reason


@pytest.mark.parametrize("form", ["json", "csv"])
def test_number_in_text_that_is_too_big_is_a_bad_row_and_no_infinity(form: str) -> None:
    schema, texts = (
        Schema({"x": "float32"}),
        ["1e38", "-1e39", "1e400", "-.1e400", "Infinity" if form == "json" else "inf", "1e-400"],
    )
    values = [(f'{{"x":{text}}}' if form == "json" else f"x\n{text}\n").encode() for text in texts]
    read = read_json if form == "json" else read_csv
    for some in (values, values[::-1]):
        rows = read(records(some), schema)
        found = [x for batch in rows.batches for x in batch["x"].to_pylist()]
        assert sorted(found) == [0.0, pytest.approx(1e38), INF]
        assert len(rows.rejects) == 3


def test_times_of_all_kinds_among_each_other_cost_few_casts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    cast = values._cast_times
    monkeypatch.setattr(values, "_cast_times", lambda texts, field: calls.append(len(texts)) or cast(texts, field))  # type: ignore[func-returns-value]
    texts = ["2024-05-17T12:00:00Z", "2024-05-17T12:00:00", "soon", "2024-05-17 14:00:00.123456789+02:00", "2024-05-17"] * 1000
    found = made(texts, "timestamp[s]")
    assert found[:5] == [int(NOON_S), int(NOON_S), "a string is not timestamp[s]", int(NOON_S), int(NOON_S) - 12 * 3600]
    assert found == found[:5] * 1000
    assert len(calls) < 10


VALUES = {
    "int8": st.integers(-(2**40), 2**40) | st.none(),
    "float32": st.floats() | st.none(),
    "timestamp": st.sampled_from(
        ["2024-05-17T12:00:00Z", "2024-05-17", "no", "2024-05-17T12:00:00.1234567", "1000-01-01", None]
    ),
    "string": st.text(max_size=12) | st.none(),
}
COLUMNS = {
    "int8": Column("int8", default=5),
    "float32": Column("float32", is_finite=True),
    "timestamp": Column("timestamp"),
    "string": Column("string", buckets=1000, default="x"),
}


@given(st.sampled_from(sorted(VALUES)), st.data())
def test_what_becomes_of_a_value_does_not_depend_on_its_neighbours(name: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(VALUES[name], min_size=1, max_size=12))
    kind = {"int8": pa.int64(), "float32": pa.float64(), "timestamp": pa.string(), "string": pa.string()}[name]
    together = made(values, COLUMNS[name], kind)
    assert together == [made([value], COLUMNS[name], kind)[0] for value in values]
