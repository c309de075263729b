"""Spans in the log: positions move with the first part, and nothing else may follow before the last one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.errors import InternalError
from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.moves import Move
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import Reject, RowRange
from dtrain.steplog.spans import OpenSpan, Part

A, B = Partition("topic", 0), Partition("topic", 1)
BEGIN = Progress(positions={A: Position(0), B: Position(0)})
RANGES = (
    RowRange(A, Position(0), Position(8), 7, (Reject(3, 0, "bad"),), 7, 70),
    RowRange(B, Position(0), Position(3), 3, (), 2, 20),
)
FIRST = Part(seed=5, opened=1, span_rows=10)


def data(number: int, part: Part | None, num_rows: int, ranges: tuple[RowRange, ...] = ()) -> Entry:
    return Entry(number, StepKind.DATA, ranges, num_rows, part=part)


def opened() -> Progress:
    return BEGIN.apply(data(1, FIRST, 4, RANGES))


def test_first_part_moves_positions_over_the_whole_span_and_counts_its_own_rows() -> None:
    progress = opened()
    assert progress.positions == {A: Position(8), B: Position(3)}
    assert (progress.rows_trained, progress.rows_rejected, progress.rows_sound) == (4, 1, 10)
    assert progress.span == OpenSpan(tuple(replace(item, rejects=()) for item in RANGES), replace(FIRST, start=4))
    assert (progress.span.num_left, progress.span.num_steps(4), progress.span.num_steps(6)) == (6, 2, 1)


def test_span_is_over_with_its_last_part_whatever_stands_between() -> None:
    progress = opened().apply(Entry(2, StepKind.CHECKPOINT)).apply(data(3, replace(FIRST, start=4), 4))
    progress = progress.apply(Entry(4, StepKind.MOVE, moves=(Move(B, Position(3), None, "gone"),)))
    assert progress.span is not None
    progress = progress.apply(data(5, replace(FIRST, start=8), 2))
    assert progress.span is None
    assert (progress.step, progress.rows_trained) == (3, 10)
    assert progress.marks == {A: (7, 70)}


def test_part_that_is_left_out_counts_as_skipped_and_goes_on() -> None:
    progress = opened().apply(replace(data(2, replace(FIRST, start=4), 6), skipped="non_finite"))
    assert (progress.span, progress.rows_trained, progress.rows_skipped) == (None, 4, 6)


@pytest.mark.parametrize(
    "entry",
    [
        data(2, None, 4, (RowRange(A, Position(8), Position(12), 4),)),  # rows as they came
        data(2, replace(FIRST, opened=2), 4, (RowRange(A, Position(8), Position(18), 10),)),  # another span
        data(2, FIRST, 4),  # trained already
        data(2, replace(FIRST, start=5), 4),  # one row is passed over
        data(2, replace(FIRST, start=4, seed=6), 4),  # in another order
        data(2, replace(FIRST, start=4), 7),  # more than there is
        data(2, replace(FIRST, start=4), 0),
        data(2, replace(FIRST, start=4), 4, (RowRange(A, Position(8), Position(8), 0),)),
    ],
)
def test_apply_of_anything_but_the_next_part_is_refused(entry: Entry) -> None:
    with pytest.raises(InternalError, match="is next"):
        opened().apply(entry)


@pytest.mark.parametrize(
    "entry",
    [
        data(1, replace(FIRST, start=4), 4, RANGES),
        data(1, replace(FIRST, opened=2), 4, RANGES),
        data(1, replace(FIRST, span_rows=11), 4, RANGES),
        data(1, FIRST, 11, RANGES),
    ],
)
def test_apply_of_a_part_that_opens_no_span_is_refused(entry: Entry) -> None:
    with pytest.raises(InternalError, match="is next"):
        BEGIN.apply(entry)


def test_span_is_in_the_manifest_only_while_it_is_open() -> None:
    assert "span" not in BEGIN.to_json()
    written = json.loads(json.dumps(opened().to_json()))
    assert Progress.from_json(written) == opened()


def test_entries_of_rows_that_are_not_shuffled_are_written_as_ever() -> None:
    assert Entry(1, StepKind.DATA, (), 3).to_json() == {"n": 1, "kind": "data", "rows": 3, "ranges": []}
    written = data(2, replace(FIRST, start=4), 4).to_json()
    assert written == {"n": 2, "kind": "data", "rows": 4, "ranges": [], "part": [5, 1, 10, 4]}
    assert Entry.from_json(json.loads(json.dumps(written))) == data(2, replace(FIRST, start=4), 4)


@given(st.integers(1, 200), st.lists(st.integers(1, 50), min_size=1))
def test_parts_of_any_sizes_come_to_the_end_of_the_span(num_rows: int, sizes: list[int]) -> None:
    progress = BEGIN
    part: Part | None = Part(0, 1, num_rows)
    ranges: tuple[RowRange, ...] = (RowRange(A, Position(0), Position(num_rows), num_rows),)
    while part is not None:
        rows = min(sizes[progress.step % len(sizes)], part.num_left)
        progress = progress.apply(data(progress.plan_number + 1, part, rows, ranges))
        part, ranges = part.after(rows), ()
        assert progress.rows_trained + (progress.span.num_left if progress.span else 0) == num_rows
        assert (progress.span and progress.span.part) == part
