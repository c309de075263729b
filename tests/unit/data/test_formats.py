"""What holds for every format: exact to the row, each message by itself, and nothing raises or grows without bound."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.arrow_frames import frames_of
from dtrain.data.arrow_messages import read_arrow
from dtrain.data.block import Block
from dtrain.data.decode import decode
from dtrain.data.json_messages import read_json
from dtrain.data.messages import ReadRows
from dtrain.data.schema import Schema
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.cursor import Cursor
from tests.support.formats import KINDS, SCHEMA, Kind, row
from tests.support.messages import arrow, records

kinds = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


def decoded(
    read: ReadRows, values: Sequence[bytes | None], *, start: Position | None = None, end: Position | None = None
) -> Block:
    start, end = start or Position(0), end or Position(len(values))
    held = [r for r in records(values) if r.offset >= start.offset and Position(r.offset) < end]
    block = decode(held, partition=Partition("t", 0), start=start, end=end, schema=SCHEMA, read=read)
    block.batch.validate(full=True)
    assert block.batch.schema.equals(SCHEMA.arrow)
    assert block.meta.num_rows == block.batch.num_rows
    return block


def ys(block: Block) -> list[int]:
    return block.batch["y"].to_pylist()  # type: ignore[no-any-return]


@kinds
@given(data=st.data())
def test_decode_of_a_stretch_in_mid_record_gives_exactly_its_rows(kind: Kind, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 4) if kind.has_many else st.just(1), min_size=1, max_size=5))
    rows = [(o, r, None if (o + r) % 3 == 2 else o * 10 + r) for o, size in enumerate(sizes) for r in range(size)]
    values = [kind.write([row(y) for o, _, y in rows if o == offset]) for offset in range(len(sizes))]
    places = [Position(o, r) for o, r, _ in rows] + [Position(len(sizes))]
    start, end = sorted(data.draw(st.tuples(st.sampled_from(places), st.sampled_from(places))))
    block = decoded(kind.reader(), values, start=start, end=end)
    inside = [(o, r, y) for o, r, y in rows if start <= (o, r) < end]
    assert ys(block) == [y for _, _, y in inside if y is not None]
    assert [(r.offset, r.row) for r in block.meta.rejects] == [(o, r) for o, r, y in inside if y is None]
    assert {reject.reason for reject in block.meta.rejects} <= {"column 'y' is null"}


@kinds
@pytest.mark.parametrize("seed", range(4))
def test_decode_of_flipped_bits_never_raises_and_judges_each_message_by_itself(kind: Kind, seed: int) -> None:
    rng, read = random.Random(seed), kind.reader()
    for _ in range(60):
        sound = kind.write([row(i) for i in range(rng.choice([1, 3, 40]) if kind.has_many else 1)])
        values = [sound, broken(sound, rng), sound, broken(sound, rng)]
        together = decoded(read, values)
        alone = [decoded(read, [value]) for value in values]
        assert ys(together) == [y for block in alone for y in ys(block)]
        assert list(together.meta.raw_rows) == [count for block in alone for count in block.meta.raw_rows]
        assert [(r.row, r.reason) for r in together.meta.rejects] == [(r.row, r.reason) for b in alone for r in b.meta.rejects]
        assert sum(together.meta.raw_rows) == together.meta.num_rows + len(together.meta.rejects)
        assert not alone[0].meta.rejects


def broken(value: bytes, rng: random.Random) -> bytes:
    """The same with bits flipped, or cut, or with some of its bytes replaced."""
    found = bytearray(value)
    if rng.random() < 0.2:
        del found[rng.randrange(len(found)) :]
    for _ in range(rng.choice([1, 1, 2, 8])):
        if found:
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    if found and rng.random() < 0.3:
        at = rng.randrange(len(found))
        found[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\xff" * 4, b"\0" * 4, rng.randbytes(4)])
    return bytes(found)


@kinds
def test_decode_of_a_thousand_broken_messages_leaves_memory_as_it_was(kind: Kind) -> None:
    rng, read = random.Random(7), kind.reader()
    sound = kind.write([row(i) for i in range(40 if kind.has_many else 1)])
    decoded(read, [broken(sound, rng) for _ in range(200)])
    before = peak_bytes()
    for _ in range(10):
        decoded(read, [broken(sound, rng) for _ in range(100)])
    assert peak_bytes() - before < 32 << 20


def peak_bytes() -> int:
    """The most memory that this process has had since the last call."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


BOMB = arrow({"x": pa.array([[0.0, 0.0]] * 100_000, pa.list_(pa.float32(), 2)), "y": [0] * 100_000}, codec="zstd")


def test_decode_of_messages_that_unpack_to_much_ends_blocks_early() -> None:
    """A few KB become 1.6 MB; the rest of the records comes with the next block."""
    assert len(BOMB) < 20_000
    block = decoded(read_arrow, [BOMB] * 100)
    assert 1 < len(block.meta.offsets) < 10
    assert block.meta.end == Position(len(block.meta.offsets))
    assert block.meta.num_rows == 100_000 * len(block.meta.offsets)


def test_take_of_messages_that_unpack_to_much_tiles_the_partition() -> None:
    cursor = Cursor(Partition("t", 0), Position(0), end=None, schema=SCHEMA, read=read_arrow)
    places = [Position(0)]
    for block in cursor.take(records([BOMB] * 20), next_offset=20):
        assert block.meta.start == places[-1]
        places.append(block.meta.end)
    assert (places[-1], len(places) > 3) == (Position(20), True)


def test_decode_of_two_million_empty_objects_ends_blocks_early() -> None:
    values = [b"{}\n" * 200_000] * 10
    block = decoded(read_json, values)
    assert len(block.meta.offsets) < 10
    assert set(block.meta.raw_rows) == {200_000}


def test_decode_of_a_list_of_nothing_that_is_long_rejects_the_record() -> None:
    """Lists without items take no memory, however many there are."""
    nothing = pa.Array.from_buffers(pa.list_(pa.float32(), 0), 2**31 - 1, [None], children=[pa.array([], pa.float32())])
    value = arrow(pa.Table.from_batches([pa.RecordBatch.from_arrays([nothing], names=["x"])]))
    rows = read_arrow(records([value]), Schema({"x": "float32[2]"}))
    assert rows.rejects == {(0, 0): "more than 1,048,576 rows in one message"}


def test_decode_of_growing_dictionaries_counts_each_of_their_copies() -> None:
    """Each addition to a dictionary copies it; a thousand of them would take a thousand times the last."""
    sink = pa.BufferOutputStream()
    schema = pa.schema([("y", pa.dictionary(pa.int32(), pa.int64()))])
    words = pa.array(range(60_000), pa.int64())
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        for size in range(1_000, 60_000, 300):
            one = pa.DictionaryArray.from_arrays(pa.array([size - 1], pa.int32()), words[:size])
            writer.write_batch(pa.RecordBatch.from_arrays([one], schema=schema))
    value = sink.getvalue().to_pybytes()
    assert frames_of(value, 0).num_bytes > 40 * len(value)
    block = read_arrow(records([value]), Schema({"y": "int64"}))
    assert block.batches[0]["y"].to_pylist() == [size - 1 for size in range(1_000, 60_000, 300)]
