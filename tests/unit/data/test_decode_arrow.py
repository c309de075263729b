"""Decoding of Arrow messages: what is accepted, what is refused with which reason, and that nothing raises."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.arrow_messages import read_arrow
from dtrain.data.block import Block, RawRecord
from dtrain.data.columns import ColumnError, clean
from dtrain.data.decode import crc_of, decode
from dtrain.data.schema import Column, Schema
from dtrain.steplog.positions import Partition, Position
from tests.support.messages import arrow, records

PARTITION = Partition("t", 0)
SCHEMA = Schema({"x": "float32[2]", "y": "int64"})


def decoded(
    *values: bytes | None, schema: Schema = SCHEMA, start: Position | None = None, end: Position | None = None
) -> Block:
    block = decode(
        records(values),
        partition=PARTITION,
        start=start or Position(0),
        end=end or Position(len(values)),
        schema=schema,
        read=read_arrow,
    )
    assert block.batch.schema.equals(schema.arrow)
    assert block.batch.num_rows == block.meta.num_rows
    assert all(column.null_count == 0 for column in block.batch.columns)
    block.batch.validate(full=True)
    return block


def rejects(block: Block) -> list[tuple[int, int, str]]:
    return [(r.offset, r.row, r.reason) for r in block.meta.rejects]


def xs(rows: list[Any], item: pa.DataType | None = None) -> pa.Array:
    return pa.array(rows, pa.list_(item or pa.float32(), 2))


GOOD = arrow({"x": xs([[1, 2], [3, 4]]), "y": [1, 2]})


def test_decode_of_whole_messages_gives_all_rows_in_order() -> None:
    block = decoded(GOOD, arrow({"y": [3], "more": ["?"], "x": xs([[5, 6]])}))
    assert block.batch.to_pydict() == {"x": [[1, 2], [3, 4], [5, 6]], "y": [1, 2, 3]}
    assert list(block.meta.raw_rows) == [2, 1]
    assert block.meta.newest_ms == 1001


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
@pytest.mark.parametrize("rows_a_batch", [1, 3, 100])
def test_decode_of_several_batches_and_codecs_gives_all_rows(rows_a_batch: int, codec: str | None) -> None:
    value = arrow({"x": xs([[i, i] for i in range(10)]), "y": list(range(10))}, rows_a_batch=rows_a_batch, codec=codec)
    assert decoded(value, value).batch["y"].to_pylist() == list(range(10)) * 2


@pytest.mark.parametrize(
    ("dtype", "column"),
    [
        ("int64", pa.array([1, 2], pa.int8())),
        ("int32", pa.array([1, 2], pa.int64())),
        ("float64", pa.array([1, 2], pa.float32())),
        ("float32", pa.array([1, 2], pa.float64())),
        ("float16", pa.array([1, 2], pa.float32())),
        ("float32", pa.array([1, 2], pa.int32())),
        ("uint8", pa.array([1, 2], pa.int64())),
        ("int64", pa.array([1, 2], pa.int64()).dictionary_encode()),
        ("int64", pa.array([1.0, 2.0], pa.float64())),
    ],
)
def test_decode_of_a_number_that_fits_gives_the_schemas_type(dtype: str, column: pa.Array) -> None:
    block = decoded(arrow({"v": column}), schema=Schema({"v": dtype}))
    assert [float(v) for v in block.batch["v"].to_pylist()] == [1, 2]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2, 3, 4]] * 2, pa.list_(pa.float64(), 4)),
        pa.array([[1, 2, 3, 4]] * 2, pa.list_(pa.int8())),
        pa.array([[1, 2, 3, 4]] * 2, pa.large_list(pa.float32())),
        pa.array([[[1, 2], [3, 4]]] * 2, pa.list_(pa.list_(pa.float32(), 2), 2)),
        pa.array([[[1, 2], [3, 4]]] * 2, pa.list_(pa.list_(pa.float32()))),
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.float32(), [2, 2]), pa.array([[1, 2, 3, 4]] * 2, pa.list_(pa.float32(), 4))
        ),
    ],
)
def test_decode_of_any_list_of_the_right_shape_gives_fixed_lists(column: pa.Array) -> None:
    block = decoded(arrow({"v": column}), schema=Schema({"v": "float32[2,2]"}))
    assert block.batch["v"].to_pylist() == [[1, 2, 3, 4]] * 2


def test_decode_of_bad_rows_rejects_these_rows_alone() -> None:
    table = {"x": pa.array([[1, 2], None, [1], [1, None], [3, 4], [5, 6]], pa.list_(pa.float32())), "y": [1, 2, 3, 4, None, 6]}
    block = decoded(GOOD, arrow(table))
    assert rejects(block) == [
        (1, 1, "column 'x' is null"),
        (1, 2, "column 'x' has not the shape of float32[2]"),
        (1, 3, "column 'x' is null"),
        (1, 4, "column 'y' is null"),
    ]
    assert block.batch["y"].to_pylist() == [1, 2, 1, 6]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"y": [1]}, "column 'x' is missing"),
        ({"x": xs([[1, 2]]), "y": ["1"]}, "column 'y': string is not int64"),
        ({"x": xs([[1, 2]]), "y": xs([[1, 2]])}, "column 'y': fixed_size_list<item: float>[2] is not int64"),
        ({"x": [1.0], "y": [1]}, "column 'x': double is not float32[2]"),
        ({"x": xs([[1, 2]]), "y": pa.array([2**63], pa.uint64())}, "column 'y': a uint64 does not fit int64"),
        ({"x": xs([[1, 2]]), "y": [1.5]}, "column 'y': a double does not fit int64"),
        ({"x": xs([[1, 2]]), "y": pa.nulls(1)}, "column 'y': null is not int64"),
    ],
)
def test_decode_of_a_wrong_column_rejects_the_record_and_names_it(table: dict[str, Any], reason: str) -> None:
    block = decoded(GOOD, arrow(table), GOOD)
    assert rejects(block) == [(1, 0, reason)]
    assert block.batch["y"].to_pylist() == [1, 2, 1, 2]


def test_decode_of_a_column_there_twice_rejects_the_record() -> None:
    table = pa.table([xs([[1, 2]]), pa.array([1]), pa.array([2])], names=["x", "y", "y"])
    assert rejects(decoded(arrow(table))) == [(0, 0, "column 'y' is there twice")]


def test_decode_of_a_message_without_rows_gives_none_and_counts_none() -> None:
    block = decoded(arrow({"x": xs([]), "y": pa.array([], pa.int64())}), GOOD)
    assert (list(block.meta.raw_rows), block.meta.rejects, block.meta.num_rows) == ([0, 2], (), 2)


def test_decode_of_nothing_gives_an_empty_block_over_the_gap() -> None:
    block = decoded(end=Position(7))
    assert (block.meta.start, block.meta.end, block.meta.num_rows, block.meta.newest_ms) == (Position(0), Position(7), 0, 0)


def test_decode_whatever_came_with_a_record_rejects_it_alike() -> None:
    """A column that does not fit takes down its own record only, though records are decoded together."""
    wrong = arrow({"x": xs([[1, 2]]), "y": pa.array([2**40])})
    small = Schema({"y": "int32"})
    values = [GOOD, wrong, GOOD, GOOD, wrong]
    alone = [decoded(value, schema=small) for value in values]
    together = decoded(*values, schema=small)
    assert [r.reason for r in together.meta.rejects] == [r.reason for block in alone for r in block.meta.rejects]
    assert together.batch["y"].to_pylist() == [y for block in alone for y in block.batch["y"].to_pylist()]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=5), st.data())
def test_decode_of_a_stretch_in_mid_record_gives_exactly_its_rows(sizes: list[int], data: st.DataObject) -> None:
    rows = [(o, r, o * 10 + r if (o + r) % 3 else None) for o, size in enumerate(sizes) for r in range(size)]
    values = [arrow({"y": pa.array([y for o, _, y in rows if o == i], pa.int64())}) for i in range(len(sizes))]
    places = [Position(o, r) for o, r, _ in rows] + [Position(len(sizes))]
    start, end = sorted(data.draw(st.tuples(st.sampled_from(places), st.sampled_from(places))))
    held = [r for r in records(values) if r.offset >= start.offset and Position(r.offset) < end]
    schema = Schema({"y": "int64"})
    block = decode(held, partition=PARTITION, start=start, end=end, schema=schema, read=read_arrow)
    inside = [(o, r, y) for o, r, y in rows if start <= (o, r) < end]
    assert block.batch["y"].to_pylist() == [y for _, _, y in inside if y is not None]
    assert [(r.offset, r.row) for r in block.meta.rejects] == [(o, r) for o, r, y in inside if y is None]
    assert block.meta.num_rows == block.batch.num_rows


def test_crc_is_of_key_then_value() -> None:
    assert crc_of(RawRecord(0, b"ab", b"cd", 0)) == crc_of(RawRecord(1, None, b"abcd", 5)) == 0x92C80A31
    assert crc_of(RawRecord(0, None, None, 0)) == 0


def cut(value: bytes, share: float) -> bytes:
    return value[: int(len(value) * share)]


def with_int(value: bytes, at: int, number: int) -> bytes:
    return value[:at] + number.to_bytes(4, "little", signed=True) + value[at + 4 :]


CORPUS = [
    None,
    b"",
    b"\0",
    b"\xff",
    b"\0" * 64,
    b"\xff" * 64,
    b"hello, world",
    b'{"x": [1, 2], "y": 1}',
    b"ARROW1\0\0" + GOOD,
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff\x08\0\0\0" + b"\xff" * 8,
    GOOD[8:],
    GOOD + b"x",
    GOOD + GOOD,
    GOOD[:-8] + b"junk",
    b"\x01" + GOOD,
    *(cut(GOOD, share) for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9)),
    *(with_int(GOOD, at, number) for at in (0, 4) for number in (-2, 0, 1, 7, 2**31 - 1, -(2**31))),
    GOOD.replace(b"y", b"z"),
    GOOD[::-1],
    arrow({"x": ["a"], "y": ["b"]}),
]


def test_decode_of_more_rows_than_fit_into_memory_rejects_the_record() -> None:
    """A column of nothing takes no memory, however long it says that it is."""
    nothing = pa.Array.from_buffers(pa.null(), 2**31 - 1, [None])
    batch = pa.RecordBatch.from_arrays([nothing, nothing], names=["x", "y"])
    assert rejects(decoded(arrow(pa.Table.from_batches([batch])))) == [(0, 0, "column 'x': null is not float32[2]")]


def test_corpus_is_big_enough() -> None:
    assert len(CORPUS) >= 30


@pytest.mark.parametrize("value", CORPUS)
def test_decode_of_a_bad_payload_rejects_it_and_keeps_its_neighbours(value: bytes | None) -> None:
    block = decoded(GOOD, value, GOOD)
    assert [r.offset for r in block.meta.rejects] == [1]
    assert block.batch["y"].to_pylist() == [1, 2, 1, 2]


def fuzzed(seed: int) -> tuple[bytes, bytes]:
    """A sound message of some kind, and the same with some bits flipped."""
    rng = random.Random(seed)
    size = rng.choice([1, 3, 200])
    table: dict[str, Any] = {
        "s": [rng.choice(["a", "bb", ""]) for _ in range(size)],
        "x": pa.array([[1, 2]] * size, rng.choice([pa.list_(pa.float32(), 2), pa.list_(pa.float64())])),
        "y": pa.array(np.arange(size)),
    }
    if rng.random() < 0.5:
        table["y"] = table["y"].dictionary_encode()
    value = arrow(table, rows_a_batch=rng.choice([None, 2]), codec=rng.choice([None, "lz4", "zstd"]))
    broken = bytearray(value)
    for _ in range(rng.choice([1, 1, 2, 8])):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return value, bytes(broken)


@pytest.mark.parametrize("seed", range(10))
def test_decode_of_flipped_bits_never_raises_and_keeps_its_neighbours(seed: int) -> None:
    for each in range(seed * 50, seed * 50 + 50):
        sound, broken = fuzzed(each)
        alone = decoded(sound)
        block = decoded(sound, broken, sound)
        ys = alone.batch["y"].to_pylist()
        assert not alone.meta.rejects
        assert block.batch["y"].to_pylist()[: len(ys)] == ys
        assert block.batch["y"].to_pylist()[block.meta.num_rows - len(ys) :] == ys
        assert sum(block.meta.raw_rows) == block.meta.num_rows + len(block.meta.rejects)


def words_of(num_rows: int, word: Any, kind: pa.DataType) -> pa.Array:
    """One word of a dictionary in every row."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int8)), pa.array([word], kind))


def pairs_of(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, 2, dtype=np.int32)), values)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.binary(100_000)])
@pytest.mark.parametrize("shape", ["", "[2]"])
def test_decode_of_a_few_bytes_that_repeat_a_long_word_rejects_the_record(kind: pa.DataType, shape: str) -> None:
    word = b"a" * 100_000 if "binary" in str(kind) else "a" * 100_000
    schema = Schema({"s": Column(f"string{shape}", buckets=9)})
    values = [words_of(num, word, kind) for num in (30_000, 2)]
    bomb, sound = (arrow({"s": pairs_of(value) if shape else value}, codec="zstd") for value in values)
    assert len(bomb) < 50_000
    reasons = {reason for offset, _, reason in rejects(decoded(bomb, sound, schema=schema)) if offset == 0}
    assert reasons == {"more than 256 MiB when unpacked"}


def test_decode_of_messages_that_are_long_when_written_out_takes_some_at_a_time() -> None:
    schema = Schema({"s": Column("string", buckets=9)})
    value = arrow({"s": words_of(50, "a" * (1 << 20), pa.string())})
    rows = read_arrow(records([value] * 5), schema)
    assert len(rows.raw_rows) == 2


@pytest.mark.parametrize("column", [pairs_of(words_of(2, [1.0, 2.0], pa.list_(pa.float32())))])
def test_decode_of_lists_of_dictionaries_of_lists_rejects_the_record(column: pa.Array) -> None:
    reason = "column 'x': a dictionary of lists is not supported"
    assert rejects(decoded(arrow({"x": column}), schema=Schema({"x": "float32[2,2]"}))) == [(0, 0, reason)]


@pytest.mark.parametrize("column", [Column("string", buckets=9), "timestamp", Column("string", vocabulary=["2020-01-01"])])
def test_decode_of_a_dictionary_of_views_is_that_of_its_texts(column: str | Column) -> None:
    schema = Schema({"s": column})
    view, plain = (arrow({"s": words_of(2, "2020-01-01", kind)}) for kind in (pa.string_view(), pa.string()))
    block = decoded(view, plain, schema=schema)
    assert not block.meta.rejects
    assert len(set(block.batch["s"].to_pylist())) == 1


def test_clean_with_which_arrow_fails_is_a_bad_column() -> None:
    long = pa.table({"s": words_of(30_000, "a" * 100_000, pa.string())})
    with pytest.raises(ColumnError):
        clean(long, Schema({"s": Column("string", buckets=9)}))
