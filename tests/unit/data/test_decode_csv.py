"""Decoding of CSV: lines of values beneath a line of names."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data import csv_messages
from dtrain.data.block import Block
from dtrain.data.csv_messages import csv_row, read_csv
from dtrain.data.decode import decode
from dtrain.data.schema import Column, Schema
from dtrain.steplog.positions import Partition, Position
from tests.support.messages import records

SCHEMA = Schema({"x": "float32", "y": "int64", "b": "bool"})


def decoded(*values: bytes | None, schema: Schema = SCHEMA) -> Block:
    end = Position(len(values))
    block = decode(records(values), partition=Partition("t", 0), start=Position(0), end=end, schema=schema, read=read_csv)
    assert block.batch.schema.equals(schema.arrow)
    assert block.batch.num_rows == block.meta.num_rows == sum(block.meta.raw_rows) - len(block.meta.rejects)
    return block


def test_decode_takes_the_schemas_names_in_any_order() -> None:
    block = decoded(b"more,b,y,x\nzebra,true,-7,2.5\n,0, 3 ,1e3\n", b"x,y,b\n0,0,1")
    assert block.batch.to_pydict() == {"x": [2.5, 1000.0, 0.0], "y": [-7, 3, 0], "b": [True, False, True]}
    assert list(block.meta.raw_rows) == [2, 1]


def test_decode_of_bad_rows_names_each_and_keeps_the_others() -> None:
    value = b'x,y,b\n1,1,true\n2,two,true\n3,3\n4,,true\n"5\n",5,true\n6, 6,1,9\n7, 7,maybe\n8,8,0\n'
    block = decoded(value)
    assert block.batch["y"].to_pylist() == [1, 8]
    assert [(r.row, r.reason) for r in block.meta.rejects] == [
        (1, "column 'y': not int64"),
        (2, "not as many values as names"),
        (3, "column 'y' is null"),
        (4, "column 'x': not float32"),
        (5, "not as many values as names"),
        (6, "column 'b': not bool"),
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no value"),
        (b"", "column 'b' is missing"),
        (b"x,y\n1,1\n", "column 'b' is missing"),
        (b"x,y,b,x\n1,1,1,1\n", "column 'x' is there twice"),
        (b"x,y,b\n1,1,\xff\n", "column 'b': not bool"),
        (b'x,y,b,t\n1,1,1,"oops\n1,1,1,a\n', "not CSV"),
        (b'x,y,b,t\n1,1,1,a\n1,1,"oops\n1,1,1,a', "not CSV"),
        (b'x,"y,b,t\n1,1,1,a\n', "column 'b' is missing"),
        (b"x\ry,y,b\n1,1,1\n", "not CSV"),
    ],
)
def test_decode_of_a_bad_value_says_why(value: bytes | None, reason: str) -> None:
    (reject,) = decoded(value).meta.rejects
    assert reject.reason == reason


def test_decode_of_a_shape_is_refused_by_name() -> None:
    (reject,) = decoded(b"x\n1\n", schema=Schema({"x": "float32[2]"})).meta.rejects
    assert reject.reason == "column 'x': CSV has numbers, not float32[2]"


cells = st.sampled_from(
    ["1", " 2", "x", "", "NA", '"3"', "4,4", "1e400", '"', "-7", "0x1F", "+5", "bad", "007", "9" * 19, "1.0"]
)


@given(st.sampled_from(["int64", "uint8", "float32", "bool"]), st.lists(cells, min_size=1, max_size=8))
def test_decode_of_a_row_does_not_depend_on_others(kind: str, rows: list[str]) -> None:
    schema = Schema({"y": kind})
    rows = [row for row in rows if row.count('"') != 1]
    alone = [len(decoded(f"y,z\n{row},0\n".encode(), schema=schema).meta.rejects) for row in rows]
    together = decoded("\n".join(["y,z", *(f"{row},0" for row in rows), ""]).encode(), schema=schema)
    assert [reject.row for reject in together.meta.rejects] == [row for row, is_bad in enumerate(alone) if is_bad]


def test_decode_of_a_row_that_is_like_the_reader_s_own_mark_is_of_this_row_alone() -> None:
    block = decoded(b"x,y,b\n1,1,1\n,,,\n2,2,1\n,,,\n")
    assert block.batch["y"].to_pylist() == [1, 2]
    assert [(r.row, r.reason) for r in block.meta.rejects] == [(row, "not as many values as names") for row in (1, 3)]


def test_csv_row_of_a_long_value_or_a_broken_line_of_names_is_there() -> None:
    value = b"x,t\n1,a\nbad," + b"a" * 200_000 + b"\n2,b\n"
    block = decoded(value, schema=Schema({"x": "float32"}))
    assert [reject.row for reject in block.meta.rejects] == [1]
    assert csv_row(value, 1) == b"x,t\nbad," + b"a" * 200_000 + b"\n"
    assert decoded(b"x," + b"a" * 200_000 + b"\n1,2\n", schema=Schema({"x": "float32"})).batch["x"].to_pylist() == [1]


def test_decode_of_a_null_is_the_same_for_texts_and_numbers_whatever_stands_beside_it() -> None:
    text = Column("string", vocabulary=["q"], default="", has_mask=True)
    schema = Schema({"c": text, "y": Column("float32", default=0, has_mask=True)})
    lines = b'c,y\n,\nNA,NA\n"null",null\nq,4\n""\n'
    for behind in (b"", b"q,bad\n"):
        block = decoded(lines.replace(b'""\n', b'"",""\n') + behind, schema=schema)
        assert block.batch["c_is_null"].to_pylist() == block.batch["y_is_null"].to_pylist() == [True] * 3 + [False, True]
        assert len(block.meta.rejects) == bool(behind)


@pytest.mark.parametrize(
    ("kind", "bad"), [("int64", "bad"), ("float32", "1,5"), ("bool", "2"), ("uint8", "2.5"), ("int8", "3.0")]
)
def test_decode_of_many_bad_rows_asks_arrow_seldom(monkeypatch: pytest.MonkeyPatch, kind: str, bad: str) -> None:
    calls: list[int] = []
    parse = csv_messages._parse

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return parse(*args, **options)

    monkeypatch.setattr(csv_messages, "_parse", counted)
    value = "x,t\n" + "".join(f'1,a\n0,b\n"{bad}",c\n' for _ in range(1000))
    block = decoded(value.encode(), schema=Schema({"x": kind}))
    assert block.batch["x"].to_pylist() == [1, 0] * 1000
    assert [reject.row for reject in block.meta.rejects] == list(range(2, 3000, 3))
    assert len(calls) < 40


def test_csv_row_is_the_row_beneath_the_names() -> None:
    value = b'x,name\n1,"a ""b"", c"\n\n2\n3,d\n'
    assert [csv_row(value, row) for row in range(3)] == [b'x,name\n1,"a ""b"", c"\n', b"x,name\n2\n", b"x,name\n3,d\n"]
    assert csv_row(value, 3) == value
