from __future__ import annotations

import pytest

from dtrain.errors import InternalError
from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.moves import Move, moved
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress

A, B, C = (Partition("t", number) for number in range(3))


def test_moves_bring_take_away_and_set_partitions() -> None:
    moves = [
        Move(A, Position(3, 1), Position(9), "deleted"),
        Move(B, Position(2), None, "gone"),
        Move(C, None, Position(0), "added"),
    ]
    assert moved({A: Position(3, 1), B: Position(2)}, moves) == {A: Position(9), C: Position(0)}


@pytest.mark.parametrize("start", [None, Position(4), Position(3)])
def test_move_that_starts_elsewhere_is_refused(start: Position | None) -> None:
    positions = {A: Position(3, 1)}
    with pytest.raises(InternalError, match="t:0"):
        moved(positions, [Move(A, start, Position(9), "deleted")])
    assert positions == {A: Position(3, 1)}


@pytest.mark.parametrize(
    ("start", "end", "expected", "words"),
    [
        (Position(3), Position(9), 6, "t:0 goes from offset 3 to offset 9 (deleted)"),
        (Position(3, 2), Position(9), 6, "t:0 goes from offset 3, row 2 to offset 9 (deleted)"),
        (Position(9), Position(3), 0, "t:0 goes from offset 9 to offset 3 (deleted)"),
        (None, Position(0), 0, "t:0 is read from offset 0 on"),
        (Position(9), None, 0, "t:0 is not read any more, from offset 9 on (deleted)"),
    ],
)
def test_move_counts_what_it_passes_over_and_says_so(
    start: Position | None, end: Position | None, expected: int, words: str
) -> None:
    move = Move(A, start, end, "deleted")
    assert (move.num_offsets, str(move)) == (expected, words)


def test_progress_is_moved_by_a_control_step_and_forgets_what_its_last_record_was() -> None:
    before = Progress(plan_number=4, step=2, positions={A: Position(3), B: Position(5)}, marks={A: (2, 7), B: (4, 8)})
    moves = (Move(A, Position(3), Position(9), "deleted"), Move(C, None, Position(0), "added"))
    after = before.apply(Entry(5, StepKind.MOVE, moves=moves, topics=(("t", "new id"),)))
    assert after.positions == {A: Position(9), B: Position(5), C: Position(0)}
    assert (after.plan_number, after.step, after.offsets_skipped) == (5, 2, 6)
    assert after.marks == {B: (4, 8)}
    assert after.topics == {"t": "new id"}
    assert after.log_hash != before.apply(Entry(5, StepKind.MOVE)).log_hash
    assert Progress.from_json(after.to_json()) == after
