"""Patience: what is borne of a broker, and for how long."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from dtrain.errors import UnavailableError
from dtrain.steplog.positions import Partition
from dtrain.stream.patience import PATIENCE_S, REFRESH_S, Patience
from tests.support.job_world import HandClock

HERE, THERE = Partition("t", 0), Partition("t", 1)
SILENT = UnavailableError("nobody answers")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def patience(clock: HandClock) -> Patience:
    return Patience([HERE, THERE], bootstrap="h:1", clock=clock)


def wait(patience: Patience, clock: HandClock, duration_s: float) -> int:
    """Ask whenever it is due, which a tail does that is polled; how often that was."""
    asked = 0
    for _ in range(round(duration_s / 0.5)):
        clock.now_s += 0.5
        asked += patience.is_due()
    return asked


def test_ends_are_asked_for_at_once_and_then_every_second(patience: Patience, clock: HandClock) -> None:
    assert patience.is_due()
    assert not patience.is_due()
    assert wait(patience, clock, 10 * REFRESH_S) == 10


def test_silence_is_borne_for_so_long_since_the_last_answer(patience: Patience, clock: HandClock) -> None:
    wait(patience, clock, PATIENCE_S - 1)
    patience.unanswered(SILENT)
    patience.answered({HERE: 0, THERE: 0}, wanted={})
    wait(patience, clock, PATIENCE_S)
    patience.unanswered(SILENT)
    wait(patience, clock, 1)
    with pytest.raises(UnavailableError, match="nobody answers"):
        patience.unanswered(SILENT)


def test_records_that_are_there_and_do_not_come_are_borne_for_so_long(patience: Patience, clock: HandClock) -> None:
    for _ in range(int(PATIENCE_S)):
        wait(patience, clock, 1)
        patience.moved(THERE, 7)
        patience.answered({HERE: 5, THERE: 9}, wanted={HERE: 4, THERE: 7})
    wait(patience, clock, 1)
    with pytest.raises(UnavailableError, match=r"t:0: .* from offset 4 on, but sends none"):
        patience.answered({HERE: 5, THERE: 9}, wanted={HERE: 4, THERE: 7})


def test_partition_of_which_nothing_is_wanted_may_be_silent(patience: Patience, clock: HandClock) -> None:
    for _ in range(3 * int(PATIENCE_S)):
        wait(patience, clock, 1)
        patience.answered({HERE: 5, THERE: 9}, wanted={THERE: 9})
    patience.resumed(HERE)
    patience.answered({HERE: 5, THERE: 9}, wanted={HERE: 4, THERE: 9})


def test_time_in_which_nobody_polled_is_not_the_brokers(patience: Patience, clock: HandClock) -> None:
    patience.is_due()
    clock.now_s += 10 * PATIENCE_S
    assert patience.is_due()
    patience.unanswered(SILENT)
    patience.answered({HERE: 5, THERE: 0}, wanted={HERE: 4, THERE: 0})


def test_partition_without_a_leader_is_waited_for_beside_the_others_and_said_once(patience: Patience, clock: HandClock) -> None:
    with capture_logs() as said:
        patience.answered({HERE: 5, THERE: 3}, wanted={HERE: 5, THERE: 3})
        for offset in range(5, 5 + 2 * int(PATIENCE_S)):
            wait(patience, clock, 1)
            patience.answered({HERE: offset}, wanted={HERE: offset, THERE: 3})
        assert patience.ends == {HERE: 4 + 2 * PATIENCE_S, THERE: 3}
    assert [line["partitions"] for line in said] == ["t:1"]
    patience.answered({HERE: 5, THERE: 9}, wanted={HERE: 5, THERE: 3})  # it is back: what it has may take its time
    for _ in range(int(PATIENCE_S)):
        wait(patience, clock, 1)
        patience.answered({HERE: 5, THERE: 9}, wanted={HERE: 5, THERE: 3})
    wait(patience, clock, 1)
    with pytest.raises(UnavailableError, match=r"t:1: .* from offset 3 on, but sends none"):
        patience.answered({HERE: 5, THERE: 9}, wanted={HERE: 5, THERE: 3})


def test_ends_are_the_newest_that_were_heard(patience: Patience) -> None:
    patience.answered({HERE: 5, THERE: 3}, wanted={})
    patience.moved(HERE, 8)
    patience.moved(THERE, 2)
    assert patience.ends == {HERE: 8, THERE: 3}
