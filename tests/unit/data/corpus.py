"""Bad messages of every format, and what is said of each: (row, reason) for every bad row of it."""

from __future__ import annotations

import json
import struct
from typing import NamedTuple

import pyarrow as pa

from tests.support.formats import CLICK, KINDS, row, table_of
from tests.support.messages import arrow, json_object


class Case(NamedTuple):
    """A value of the format `kind`, and its bad rows."""

    kind: str
    name: str
    value: bytes | None
    bad: dict[int, str]


GOOD = {kind.name: kind.write([row(1)]) for kind in KINDS}
ROWS = [row(1), row(None), row(3)]
NO_ARROW = "not an Arrow IPC stream or file, or a broken one"
NO_AVRO = "not an Avro record of its schema, or a broken one"
NO_PROTOBUF = "not a Protobuf message, or a broken one"
NO_OBJECT = "not a JSON object"
NULL = "column 'y' is null"

_PACKED = arrow(table_of([row(7)] * 10_000), codec="zstd")
_FILE = GOOD["arrow-file"]
_GOOD_LINE = GOOD["json-object"]


def whole(reason: str) -> dict[int, str]:
    """The message is bad as a whole."""
    return {0: reason}


CORPUS = [
    *(
        Case(
            kind.name,
            "nothing",
            None,
            whole("the decoder raised ValueError: nothing to decode" if kind.name == "raw" else "no value"),
        )
        for kind in KINDS
    ),
    # Arrow
    Case("arrow", "empty", b"", whole(NO_ARROW)),
    Case("arrow", "text", b"hello, world", whole(NO_ARROW)),
    Case("arrow", "half", GOOD["arrow"][: len(GOOD["arrow"]) // 2], whole(NO_ARROW)),
    Case("arrow", "tail", GOOD["arrow"] + b"x", whole("bytes behind the end of the Arrow IPC stream")),
    Case("arrow", "two", GOOD["arrow"] * 2, whole("bytes behind the end of the Arrow IPC stream")),
    Case("arrow", "a null", KINDS[0].write(ROWS), {1: NULL}),
    Case("arrow", "texts", arrow({"x": [[1.0, 2.0]], "y": ["1"]}), whole("column 'y': string is not int64")),
    Case("arrow", "no y", arrow({"x": [[1.0, 2.0]]}), whole("column 'y' is missing")),
    Case(
        "arrow",
        "a terabyte",
        _PACKED.replace(struct.pack("<q", 80_000), struct.pack("<q", 1 << 40)),
        whole("more than 256 MiB when unpacked"),
    ),
    Case("arrow", "less than said", _PACKED.replace(struct.pack("<q", 80_000), struct.pack("<q", 80_008)), whole(NO_ARROW)),
    Case(
        "arrow",
        "a million rows and one",
        arrow({"x": pa.nulls(2**20 + 1, pa.list_(pa.float32(), 2)), "y": [0] * (2**20 + 1)}, codec="zstd"),
        whole("more than 1,048,576 rows in one message"),
    ),
    Case(
        "arrow",
        "dictionary of lists",
        arrow({"x": pa.DictionaryArray.from_arrays([0], pa.array([[1.0, 2.0]])), "y": [1]}),
        whole("column 'x': a dictionary of lists is not supported"),
    ),
    Case("arrow-file", "no footer", _FILE[:-20], whole(NO_ARROW)),
    Case("arrow-file", "tail", _FILE + b"x", whole(NO_ARROW)),
    Case("arrow-file", "only magic", b"ARROW1\0\0ARROW1", whole(NO_ARROW)),
    # JSON
    Case("json-object", "empty", b"", whole(NO_OBJECT)),
    Case("json-object", "a number", b"7", whole(NO_OBJECT)),
    Case("json-object", "half", _GOOD_LINE[:20], whole(NO_OBJECT)),
    Case("json-object", "two in a line", _GOOD_LINE * 2, whole(NO_OBJECT)),
    Case(
        "json-object", "twice", _GOOD_LINE[:-1] + b', "y": 8}', whole("not one JSON object of the schema, with each name once")
    ),
    Case("json-object", "text", json_object(x=[1, 2], y="1"), whole("column 'y': str is not int64")),
    Case("json-object", "no y", json_object(x=[1, 2]), whole(NULL)),
    Case("json-object", "deep", b'{"y": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", whole(NO_OBJECT)),
    Case("json-object", "over lines", b'{\n"x": [1, 2],\n"y": "1"\n}', whole("column 'y': str is not int64")),
    Case("json-lines", "some", _GOOD_LINE + b"\nhello\n\n{}\n" + _GOOD_LINE + b"\n", {1: NO_OBJECT, 2: "column 'x' is null"}),
    Case("json-lines", "first", b"hello\n" + _GOOD_LINE, {0: NO_OBJECT}),
    Case("json-lines", "last", _GOOD_LINE + b'\n{"x": [1', {1: NO_OBJECT}),
    Case("json-lines", "a million and one", b"{}\n" * (2**20 + 1), whole("more than 1,048,576 rows in one message")),
    Case(
        "json-array",
        "some",
        b"[" + _GOOD_LINE + b", 7, null, {}, " + _GOOD_LINE + b"]",
        {1: NO_OBJECT, 2: NO_OBJECT, 3: "column 'x' is null"},
    ),
    Case("json-array", "a null", json.dumps(ROWS).encode(), {1: NULL}),
    Case("json-array", "half", json.dumps(ROWS).encode()[:-1], whole(NO_OBJECT)),
    Case("json-array", "two", b"[" + _GOOD_LINE + b"] [" + _GOOD_LINE + b"]", whole("not a JSON array")),
    Case("json-array", "another key", b"[" + _GOOD_LINE + b'], "q": [1]', whole("not a JSON array")),
    Case("json-array", "a comma too much", b"[" + _GOOD_LINE + b",]", {1: NO_OBJECT}),
    Case("json-array", "deep", b"[" * 100_000 + b"]" * 100_000, whole(NO_OBJECT)),
    Case("json-array", "a million and one", b"[" + b"{}," * 2**20 + b"{}]", whole("more than 1,048,576 rows in one message")),
    # Avro
    Case("avro", "empty", b"", whole(NO_AVRO)),
    Case("avro", "half", GOOD["avro"][:9], whole(NO_AVRO)),
    Case("avro", "tail", GOOD["avro"] + b"x", whole("bytes behind the end of the Avro record")),
    Case("avro", "a null", KINDS[9].write([row(None)]), {0: NULL}),
    Case("avro", "a text of a terabyte", b"\x80\x80\x80\x80\x80\x80\x20abc", whole(NO_AVRO)),
    Case("avro", "an array of a terabyte", b"\0" + b"\x80\x80\x80\x80\x80\x80\x20abc", whole(NO_AVRO)),
    Case("avro", "no branch of a union", GOOD["avro"][:-2] + b"\x08\x02", whole(NO_AVRO)),
    Case("avro", "not UTF-8", b"\x02\xff" + GOOD["avro"][11:], whole(NO_AVRO)),
    # raw
    Case(
        "raw", "half", GOOD["raw"][:-1], whole("the decoder raised ValueError: buffer size must be a multiple of element size")
    ),
    Case("raw", "a null", KINDS[10].write(ROWS), {1: NULL}),
    # Protobuf
    Case("protobuf", "text", b"hello, world", whole(NO_PROTOBUF)),
    Case("protobuf", "empty", b"", whole("column 'x' has not the shape of float32[2]")),
    Case("protobuf", "half", GOOD["protobuf"][:4], whole(NO_PROTOBUF)),
    Case("protobuf", "no y", CLICK(x=[1, 2]).SerializeToString(), whole(NULL)),
    Case("protobuf", "one x", CLICK(x=[1], y=1).SerializeToString(), whole("column 'x' has not the shape of float32[2]")),
    Case("protobuf", "a group without end", b"\x0b" * 1000, whole(NO_PROTOBUF)),
    Case("protobuf", "a text of 4 GiB", b"\x0a\xff\xff\xff\xff\x0fabc", whole(NO_PROTOBUF)),
]
