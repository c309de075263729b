"""Protobuf: what can be a column, what is null, and that what is not wanted costs nothing."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from dtrain.data.formats import reader_of
from dtrain.data.messages import Rows
from dtrain.data.schema import Schema
from dtrain.errors import SpecError
from dtrain.spec.formats import ProtobufFormat
from tests.support.formats import CLICK, PROTOBUF, format_of
from tests.support.messages import records


def read(schema: Schema, *messages: Any) -> Rows:
    values = [message if isinstance(message, bytes) else message.SerializeToString() for message in messages]
    return reader_of(format_of(PROTOBUF))(records(values), schema)


def column(rows: Rows, name: str) -> list[Any]:
    return [value for batch in rows.batches for value in batch[name].to_pylist()]


def test_fields_of_every_kind_become_columns() -> None:
    schema = Schema({"kind": "int32", "plain": "float32", "y": "int64", "x": "float32[3]"})
    rows = read(schema, CLICK(kind=1, plain=-3, y=7, x=[1, 2, 3]), CLICK(y=0, x=[0, 0, 0]))
    assert [column(rows, name) for name in ("kind", "plain", "y", "x")] == [[1, 0], [-3, 0], [7, 0], [[1, 2, 3], [0, 0, 0]]]


def test_a_field_that_can_tell_that_it_was_not_set_is_null_then() -> None:
    rows = read(Schema({"plain": "int32", "y": "int64"}), CLICK(plain=1), CLICK(y=2))
    assert (column(rows, "plain"), rows.rejects) == ([0], {(0, 0): "column 'y' is null"})


def test_a_message_is_no_column() -> None:
    rows = read(Schema({"inner": "int32"}), CLICK(y=1))
    assert rows.rejects == {(0, 0): "column 'inner': list<item: struct<message: null>> is not int32"}


def test_messages_in_a_message_that_are_not_wanted_are_not_unpacked() -> None:
    """A million empty ones, and ten thousand that hold each other."""
    deep = b""
    for _ in range(10_000):
        deep = b"\x22" + _varint(len(deep)) + deep
    good = CLICK(y=5).SerializeToString()
    rows = read(Schema({"y": "int64"}), b"\x22\0" * 1_000_000 + good, deep + good)
    assert column(rows, "y") == [5, 5]


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"message": "shop.Clack"}, "source.format.message"),
        ({"message": "shop.Kind"}, "source.format.message"),
        ({"descriptors": "base64:" + base64.b64encode(b"nothing").decode()}, "source.format.descriptors"),
    ],
)
def test_descriptors_that_do_not_describe_are_refused(changes: dict[str, str], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        reader_of(ProtobufFormat.model_validate(PROTOBUF | changes))
    assert caught.value.path == path
