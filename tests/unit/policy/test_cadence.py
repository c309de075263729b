"""When a checkpoint is due."""

from __future__ import annotations

from dtrain.policy.cadence import CheckpointCadence


def test_checkpoint_that_cannot_be_written_is_tried_again_later_each_time_up_to_a_minute() -> None:
    cadence, waits = CheckpointCadence(30.0, 0.0, 0), []
    for now_s in range(0, 800, 100):
        cadence.cut(now_s=now_s, plan_number=now_s + 1)
        cadence.postpone(now_s=now_s)
        waits.append(cadence.retry_at_s - now_s)
        assert cadence.is_due(now_s=now_s + 1, plan_number=now_s + 1), "without anything new too"
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    cadence.done()
    cadence.postpone(now_s=1000.0)
    assert cadence.retry_at_s == 1002
