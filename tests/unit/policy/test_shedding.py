from __future__ import annotations

from dtrain.policy.cutting import Cutter
from dtrain.policy.shedding import shed
from dtrain.steplog.moves import Move
from dtrain.steplog.positions import Partition, Position
from tests.support.blocks import block

OLD, FRESH, BEHIND, EMPTY = (Partition("t", number) for number in range(4))


def test_partition_in_which_a_record_has_waited_too_long_goes_to_its_end() -> None:
    cutter = Cutter(
        positions=dict.fromkeys((OLD, FRESH, BEHIND, EMPTY), Position(0)),
        ends=None,
        rows=2,
        max_wait_s=60,
        is_strict=False,
        step=0,
    )
    for number, (partition, newest_s) in enumerate(((OLD, 100), (OLD, 160), (FRESH, 150), (BEHIND, 90))):
        first = cutter.read_to[partition].offset
        cutter.add(number, block(partition, first, first + 5, newest_ms=newest_s * 1000), now_s=0)
    ends = {OLD: 80, FRESH: 80, BEHIND: 4, EMPTY: 80}  # an end may be older than the newest block
    assert shed(cutter, end_offsets=ends, over_s=70, now_s=160).moves == ()
    change = shed(cutter, end_offsets=ends, over_s=59, now_s=160)
    assert change.moves == (Move(OLD, Position(0), Position(80), "lag"), Move(BEHIND, Position(0), Position(5), "lag"))
    assert cutter.move(change.moves) == (0, 1, 3)
    assert shed(cutter, end_offsets=ends, over_s=59, now_s=160).moves == ()
    assert (cutter.positions[OLD], cutter.read_to[OLD], cutter.num_waiting) == (Position(80), Position(80), 5)
