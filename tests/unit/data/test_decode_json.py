"""Decoding of JSON messages that are one object, so one row."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.block import Block
from dtrain.data.decode import decode
from dtrain.data.json_messages import read_json
from dtrain.data.schema import Schema
from dtrain.steplog.positions import Partition, Position
from tests.support.messages import json_object, records

SCHEMA = Schema({"x": "float32[2]", "y": "int64", "b": "bool"})
GOOD = json_object(x=[1, 2.5], y=7, b=True)


def decoded(*values: bytes | None, schema: Schema = SCHEMA) -> Block:
    end = Position(len(values))
    block = decode(records(values), partition=Partition("t", 0), start=Position(0), end=end, schema=schema, read=read_json)
    assert block.batch.schema.equals(schema.arrow)
    assert block.batch.num_rows == block.meta.num_rows == len(values) - len(block.meta.rejects)
    assert list(block.meta.raw_rows) == [1] * len(values)
    block.batch.validate(full=True)
    return block


def reason(value: bytes | None, schema: Schema = SCHEMA) -> str:
    (reject,) = decoded(value, schema=schema).meta.rejects
    return reject.reason


def test_decode_of_objects_takes_the_schemas_names_in_any_order() -> None:
    block = decoded(GOOD, json_object(more={"deep": [1, {"a": None}]}, b=False, y=-1, x=[0, 1]))
    assert block.batch.to_pydict() == {"x": [[1, 2.5], [0, 1]], "y": [7, -1], "b": [True, False]}


@pytest.mark.parametrize("value", [b'{\n "y":\t7,\r\n "x": [1, 2.5],\n "b": true\n}\n', b"  " + GOOD + b"\n\n"])
def test_decode_of_an_object_over_several_lines_gives_one_row(value: bytes) -> None:
    assert decoded(GOOD, value, GOOD).batch.to_pydict() == decoded(GOOD, GOOD, GOOD).batch.to_pydict()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "no value"),
        (b"", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"[" + GOOD, "not a JSON object"),
        (b"\xef\xbb\xbf" + GOOD, "not a JSON object"),
        (GOOD[:-1], "not a JSON object"),
        (GOOD[1:], "not a JSON object"),
        (GOOD + b",", "not a JSON object"),
        (GOOD + GOOD, "not a JSON object"),
        (GOOD + b" " + GOOD, "not a JSON object"),
        (GOOD[:-1] + b"\0}", "not a JSON object"),
        (GOOD[:-1] + b"}}", "not a JSON object"),
        (b"{" + GOOD, "not a JSON object"),
        (b"{'y': 1}", "not a JSON object"),
        (b'{"s": "}', "not a JSON object"),
        (GOOD.replace(b"7", b"07"), "not a JSON object"),
        (GOOD.replace(b"7", b"+7"), "not a JSON object"),
        (GOOD[:-1] + b', "y": 8}', "not one JSON object of the schema, with each name once"),
        (b"{}", "column 'b' is null"),
        (json_object(x=[1, 2], y=1), "column 'b' is null"),
        (json_object(x=[1, 2], y=None, b=True), "column 'y' is null"),
        (json_object(x=[1, None], y=1, b=True), "column 'x' is null"),
        (json_object(x=[1], y=1, b=True), "column 'x' has not the shape of float32[2]"),
        (json_object(x=[1, 2, 3], y=1, b=True), "column 'x' has not the shape of float32[2]"),
        (json_object(x=1, y=1, b=True), "column 'x': int is not float32[2]"),
        (json_object(x=[[1, 2]], y=1, b=True), "column 'x': list is not float32[2]"),
        (json_object(x=[1, "2"], y=1, b=True), "column 'x': list is not float32[2]"),
        (json_object(x=[1, 2], y="1", b=True), "column 'y': str is not int64"),
        (json_object(x=[1, 2], y=1.5, b=True), "column 'y': float is not int64"),
        (json_object(x=[1, 2], y=2**63, b=True), "column 'y': int is not int64"),
        (json_object(x=[1, 2], y=True, b=True), "column 'y': bool is not int64"),
        (json_object(x=[1, 2], y={"a": 1}, b=True), "column 'y': dict is not int64"),
        (json_object(x=[1, 2], y=1, b=1), "column 'b': int is not bool"),
    ],
)
def test_decode_of_a_bad_value_rejects_it_alone_with_a_reason(value: bytes | None, expected: str) -> None:
    assert reason(value) == expected
    block = decoded(GOOD, value, GOOD)
    assert [r.offset for r in block.meta.rejects] == [1]
    assert block.batch.to_pydict() == decoded(GOOD, GOOD).batch.to_pydict()


def test_decode_of_halves_that_only_together_are_one_object_rejects_both() -> None:
    values = [b'{"y": 1, "s": "}', b'{", "x": [1, 2], "b": true}']
    assert [r.offset for r in decoded(GOOD, *values, GOOD).meta.rejects] == [1, 2]


def test_decode_of_two_objects_and_none_in_a_row_does_not_mix_them_up() -> None:
    """The block's row count is right by chance: each value must still be one object."""
    assert [r.offset for r in decoded(GOOD + GOOD, b"", GOOD).meta.rejects] == [0, 1]


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8"])
def test_decode_of_a_number_out_of_its_types_range_rejects_it(dtype: str) -> None:
    top = 2 ** (int(dtype[-2:].lstrip("t")) - (dtype[0] == "i"))
    block = decoded(json_object(v=top - 1), json_object(v=top), json_object(v=0), schema=Schema({"v": dtype}))
    assert block.batch["v"].to_pylist() == [top - 1, 0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_decode_of_floats_takes_integers_nan_and_infinity(dtype: str) -> None:
    values = decoded(b'{"v": 1}', b'{"v": -2.5e0}', b'{"v": NaN}', b'{"v": Infinity}', schema=Schema({"v": dtype})).batch["v"]
    found = [float(v) for v in values.to_pylist()]
    assert found[:2] == [1, -2.5]
    assert math.isnan(found[2])
    assert found[3] == math.inf


def test_decode_of_a_number_too_big_for_float64_rejects_it() -> None:
    assert reason(b'{"v": 1e400}', Schema({"v": "float64"})) == "not one JSON object of the schema, with each name once"


def test_decode_of_very_deep_nesting_survives() -> None:
    deep = b'{"deep": ' + b"[" * 50_000 + b"]" * 50_000 + b', "y": 7, "x": [1, 2], "b": true}'
    assert decoded(deep, deep[:-1] + b"]}", GOOD).batch["y"].to_pylist() == [7, 7]


@given(st.lists(st.sampled_from([GOOD, b"{}", b"x", None, GOOD + GOOD, json_object(x=[1, 2], y="1", b=True)]), max_size=40))
def test_decode_of_any_mixture_judges_each_value_as_if_alone(values: list[bytes | None]) -> None:
    assert [r.offset for r in decoded(*values).meta.rejects] == [i for i, value in enumerate(values) if value is not GOOD]


@pytest.mark.parametrize("seed", range(10))
def test_decode_of_flipped_bits_never_raises_and_keeps_its_neighbours(seed: int) -> None:
    rng = random.Random(seed)
    values: list[Any] = []
    for _ in range(100):
        broken = bytearray(GOOD)
        for _ in range(rng.choice([1, 1, 3])):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        values += [GOOD, bytes(broken)]
    assert all(reject.offset % 2 for reject in decoded(*values).meta.rejects)
