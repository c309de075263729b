"""What a topic's values are taken for."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.block import RawRecord
from dtrain.data.guess import MOST_VALUES, Guess, guess, open_value
from dtrain.data.schema import Schema
from tests.support.messages import arrow, json_object


def of(*values: bytes | None, key: bytes | None = None) -> Guess:
    return guess([RawRecord(offset, key, value, offset) for offset, value in enumerate(values)])


def arrow_file(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("value", "kind", "num_rows"),
    [
        (None, "no value", 0),
        (arrow({"x": [1, 2]}), "arrow stream", 2),
        (arrow_file(pa.table({"x": [1, 2, 3]})), "arrow file", 3),
        (b'{"a": 1}', "json object", 1),
        (b' {"a":\n 1}\n', "json object", 1),
        (b'[{"a": 1}, {"a": 2}]', "json array", 2),
        (b'{"a": 1}\n{"a": 2}\n', "ndjson", 2),
        (b"[1, 2]", "json, not of objects", 1),
        (b"17", "json, not of objects", 1),
        (b"Obj\x01 and so on", "avro file", 1),
        (b"\x00\x00\x00\x00\x07\x02", "avro (or other) of a schema registry, schema 7", 1),
        (b"PAR1 and so on", "parquet file", 1),
        (b"\x1f\x8b\x08", "gzip", 1),
        (b"17,0.5,late", "text", 1),
        (b"\x00\x01\xff", "raw bytes", 1),
        (b"\xff\xff\xff\xff and nothing sound", "raw bytes", 1),
        (b"", "text", 1),
    ],
)
def test_value_is_taken_for_what_it_is(value: bytes | None, kind: str, num_rows: int) -> None:
    assert open_value(value)[:2] == (kind, num_rows)


@given(st.binary(max_size=40) | st.integers(0, 200).map(lambda i: arrow({"x": [1.0, 2.0]})[:i]))
def test_bytes_of_any_kind_are_opened_without_an_error(value: bytes) -> None:
    assert open_value(value).kind


def test_columns_of_json_get_the_type_that_fits_their_values() -> None:
    found = of(
        json_object(a=1, b=1, c=True, d=[1, 2.5], e=[[1], [2]], f="x", g={"h": 1}, i=[1, "x"], j=2**70, k=None),
        json_object(a=2, b=1.5, c=False, d=[3, 4], e=[[3], [4]], f="y", g={"h": 2}, i=[2], j=1, k=None),
    )
    types = {"a": "int64", "b": "float32", "c": "bool", "d": "float32[2]", "e": "int64[2,1]", "f": "string"}
    assert {column.name: column.type for column in found.columns if column.type} == types
    assert Schema({name: kind for name, kind in types.items() if kind != "string"})
    words = {column.name: column.found for column in found.columns if not column.type}
    assert words["k"] == "nothing"
    assert "list of different things" in words["i"]


def test_columns_of_arrow_get_the_type_that_they_declare() -> None:
    columns = {
        "a": pa.array([1], pa.int16()),
        "b": pa.array([1.0], pa.float64()),
        "c": pa.array([[1.0, 2.0]], pa.list_(pa.float16())),
        "d": pa.array([7], pa.uint16()),
        "e": pa.array(["x"]).dictionary_encode(),
        "f": pa.array([1], pa.timestamp("ms")),
        "g": pa.array(["x"], pa.large_string()),
        "h": pa.array(["x"], pa.string_view()),
        "i": pa.array([["x"]]),
    }
    found = {column.name: column.type for column in of(arrow(columns)).columns}
    assert found == {
        "a": "int16",
        "b": "float32",
        "c": "float16[2]",
        "d": "int32",
        "e": "string",
        "f": "",
        "g": "string",
        "h": "string",
        "i": "",
    }
    assert Schema({name: kind for name, kind in found.items() if kind not in ("", "string")})


def test_column_that_some_rows_lack_cannot_be_used_as_it_is() -> None:
    found = {column.name: column for column in of(json_object(a=1, b=1), json_object(a=2), json_object(a=3, b=None)).columns}
    assert (found["a"].is_usable, found["b"].is_usable, found["b"].num_rows) == (True, False, 1)


@pytest.mark.parametrize(
    ("row", "label", "is_binary"),
    [
        ({"user": 1, "Clicked": 0, "age": 3}, "Clicked", True),
        ({"user": 1, "price": 0.5}, "price", False),
        ({"price": 0.5, "target": "x"}, "price", False),
        ({"x": [1, 2]}, "", False),
    ],
)
def test_label_is_the_column_with_a_name_for_it_or_the_last_number(row: dict[str, object], label: str, is_binary: bool) -> None:
    found = of(json_object(**row), json_object(**(row | {label: 1} if label else row)))
    assert found.label == label
    assert any(column.is_binary for column in found.columns if column.name == label) == is_binary


def test_commonest_kind_is_the_topics_and_the_others_are_counted() -> None:
    found = of(b"{}", b'{"a": 1}', None, b"\xff")
    assert found.kinds == {"json object": 2, "no value": 1, "raw bytes": 1}
    assert (found.format, found.num_records, found.num_rows, found.has_keys) == ("json", 4, 2, False)


def test_rows_are_counted_all_and_looked_at_as_far_as_need_be_the_newest() -> None:
    found = of(*(arrow({"row": range(i * 200, i * 200 + 200)}) for i in range(5)))
    assert (found.num_rows, found.rows_a_record, len(found.rows)) == (1000, 200, MOST_VALUES)
    assert found.rows[-1] == {"row": 999}


def test_no_records_are_no_kind() -> None:
    assert (guess([]).kind, guess([]).format, guess([]).label, guess([]).rows_a_record) == ("", "", "", 0)


def test_example_of_a_column_can_be_written_as_json() -> None:
    found = of(arrow({"at": pa.array([1], pa.timestamp("ms")), "raw": [b"\xff"]}))
    assert json.dumps([column.example for column in found.columns], default=str)
