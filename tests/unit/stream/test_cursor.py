"""Cursors: blocks that tile a partition, whatever comes in whichever pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.arrow_messages import read_arrow
from dtrain.data.block import RawRecord
from dtrain.data.json_messages import read_json
from dtrain.data.messages import ReadRows
from dtrain.data.schema import Schema
from dtrain.errors import DataLossError
from dtrain.steplog.positions import Partition, Position
from dtrain.stream import cursor as cursors
from dtrain.stream.cursor import Cursor
from tests.support.messages import arrow, json_object, records

PARTITION = Partition("t", 0)
SCHEMA = Schema({"y": "int64"})


def new(position: Position, *, end: Position | None = None, read: ReadRows = read_json) -> Cursor:
    return Cursor(PARTITION, position, end=end, schema=SCHEMA, read=read)


@given(
    gaps=st.lists(st.integers(0, 2), max_size=30),
    pieces=st.lists(st.integers(1, 7), min_size=30, max_size=30),
    end=st.none() | st.integers(0, 60),
)
def test_take_of_any_pieces_tiles_the_partition(gaps: list[int], pieces: list[int], end: int | None) -> None:
    found, offset = [], 0
    for gap in gaps:
        offset += gap
        found.append(RawRecord(offset, None, json_object(y=offset), 0))
        offset += 1
    stop = offset + 2
    cursor = new(Position(0), end=None if end is None else Position(end))
    blocks, at = [], 0
    for piece in pieces:
        if at < stop:
            until = min(stop, at + piece)
            blocks += cursor.take([r for r in found if at <= r.offset < until], next_offset=until)
            at = until
    places = [Position(0), *(block.meta.end for block in blocks)]
    assert [block.meta.start for block in blocks] == places[:-1]
    last = Position(at) if end is None else min(Position(at), Position(end))
    assert places[-1] == cursor.position == last
    assert [y for b in blocks for y in b.batch["y"].to_pylist()] == [r.offset for r in found if Position(r.offset) < last]
    assert cursor.is_done == (end is not None and at >= end)


def test_take_of_only_a_gap_gives_a_block_without_rows() -> None:
    (block,) = new(Position(3)).take([], next_offset=9)
    assert (block.meta.start, block.meta.end, block.meta.num_rows) == (Position(3), Position(9), 0)


def test_take_of_nothing_new_gives_no_block() -> None:
    cursor = new(Position(3))
    assert list(cursor.take([], next_offset=3)) == []
    assert cursor.position == Position(3)


def test_take_from_mid_record_gives_the_rest_of_it() -> None:
    value = arrow({"y": [0, 1, 2, 3]})
    (block,) = new(Position(3, 2), read=read_arrow).take(records([value], first=3), next_offset=4)
    assert block.batch["y"].to_pylist() == [2, 3]


@pytest.mark.parametrize("left", [[], [RawRecord(5, None, arrow({"y": [9]}), 0)]])
def test_take_without_the_record_that_was_begun_is_a_data_loss(left: list[RawRecord]) -> None:
    """Compaction may take a record of which some rows are trained, and some not."""
    cursor = new(Position(3, 2), read=read_arrow)
    with pytest.raises(DataLossError, match=r"record at offset 3 is gone.*--allow-gap"):
        list(cursor.take(left, next_offset=6))
    assert cursor.position == Position(3, 2)


def test_take_of_many_records_bounds_the_rows_of_a_block() -> None:
    cursor = new(Position(0))
    values = [json_object(y=y) for y in range(3 * cursors.BLOCK_ROWS - 1)]
    assert [b.meta.num_rows for b in cursor.take(records(values), next_offset=len(values))] == [16384, 16384, 16383]


def test_take_of_many_rows_a_record_learns_to_bound_the_rows_of_a_block() -> None:
    cursor = new(Position(0), read=read_arrow)
    value = arrow({"y": list(range(1000))})
    list(cursor.take(records([value]), next_offset=1))
    blocks = cursor.take(records([value] * 20, first=1), next_offset=21)
    assert [b.meta.num_rows for b in blocks] == [16000, 4000]


def test_take_of_big_records_bounds_the_bytes_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    value = json_object(y=1)
    monkeypatch.setattr(cursors, "BLOCK_BYTES", 3 * len(value))
    assert [b.meta.num_rows for b in new(Position(0)).take(records([value] * 8), next_offset=8)] == [3, 3, 2]


def test_take_of_one_record_beyond_every_bound_gives_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursors, "BLOCK_BYTES", 10)
    value = arrow({"y": list(range(10_000))})
    (block,) = new(Position(0), read=read_arrow).take(records([value]), next_offset=1)
    assert block.meta.num_rows == 10_000
