"""A rank's step times are told once, by the lowest rank of the generation that took them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.checkpoint.places import open_store
from dtrain.rank import Rank
from dtrain.steplog.positions import Position
from dtrain.train.collective import InlineCollective
from tests.support.ranks import PARTITION, batches, spec, steps

JOB = spec(numerics="fast")


class Higher(InlineCollective):
    rank = 1


@pytest.fixture
def rank(tmp_path: Path) -> Rank:
    made = Rank(JOB, open_store(tmp_path))
    made.genesis({PARTITION: Position(0)})
    return made


def train(rank: Rank, first: int, last: int) -> None:
    for plan, columns in list(steps(last))[first - 1 :]:
        rank.step(plan, batches(columns, rank=0, shares=(4,), job=JOB), newest_ms=0)


def test_step_times_are_told_once(rank: Rank) -> None:
    rank.begin(InlineCollective())
    train(rank, 1, 3)
    assert [len(rank.report().steps_s) for _ in range(2)] == [3, 0]


def test_rank_that_nobody_asks_keeps_no_step_times_and_tells_none_later(rank: Rank) -> None:
    rank.begin(Higher())
    train(rank, 1, 3)
    rank.begin(InlineCollective())
    train(rank, 4, 5)
    assert len(rank.report().steps_s) == 2


def test_step_times_of_a_generation_that_is_over_are_not_told_by_the_next(rank: Rank) -> None:
    rank.begin(InlineCollective())
    train(rank, 1, 3)
    rank.begin(InlineCollective())
    assert len(rank.report().steps_s) == 0
