"""Same rows, same weights: one rank, several, idle ones, others half-way, a restored one."""

from __future__ import annotations

import pytest
import torch

from dtrain.snapshot import encode_state
from dtrain.train.replica import Replica
from tests.support.ranks import new_replica, spec, steps, train

STEPS = 40


def _trained(numerics: str, world_size: int, **options: object) -> Replica:
    job = spec(numerics=numerics, **options)  # type: ignore[arg-type]
    replicas = [new_replica(job) for _ in range(world_size)]
    train(job, replicas, list(steps(STEPS)))
    assert len({encode_state(replica.state()) for replica in replicas}) == 1
    return replicas[0]


def _difference(a: Replica, b: Replica) -> float:
    pairs = list(zip(a.model.parameters(), b.model.parameters(), strict=True))
    apart = sum(float((x - y).detach().double().square().sum()) for x, y in pairs)
    whole = sum(float(y.detach().double().square().sum()) for _, y in pairs)
    return float((apart / whole) ** 0.5)


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_exact_any_number_of_ranks_gives_the_same_bits(world_size: int, with_norm: bool) -> None:
    one = _trained("exact", 1, with_norm=with_norm)
    many = _trained("exact", world_size, with_norm=with_norm)
    assert encode_state(one.state()) == encode_state(many.state())


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_fast_any_number_of_ranks_gives_the_same_weights_within_1e_6(world_size: int) -> None:
    assert _difference(_trained("fast", 1), _trained("fast", world_size)) <= 1e-6


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_ranks_without_rows_take_part_and_change_nothing(numerics: str) -> None:
    job = spec(numerics=numerics, num_slices=8)
    plans = list(steps(20, rows=lambda step: 1 + step % 2))  # one or two rows for eight slices and three ranks
    one, three = [new_replica(job)], [new_replica(job) for _ in range(3)]
    train(job, one, plans)
    train(job, three, plans)
    assert _difference(one[0], three[2]) <= 1e-6


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_n_ranks_resumed_as_m_from_a_state_give_the_same_weights(numerics: str) -> None:
    job = spec(numerics=numerics)
    plans = list(steps(STEPS))
    first = [new_replica(job) for _ in range(2)]
    train(job, first, plans[:17])
    resumed = [new_replica(job) for _ in range(3)]
    for replica in resumed:
        replica.adopt(first[1].state())
    train(job, resumed, plans)
    uninterrupted = _trained(numerics, 1)
    if numerics == "exact":
        assert encode_state(resumed[2].state()) == encode_state(uninterrupted.state())
    assert _difference(resumed[2], uninterrupted) <= 1e-6


def test_parameter_that_no_rank_touched_keeps_its_value_and_no_gradient() -> None:
    replica = _trained("exact", 2)
    assert torch.equal(replica.model.never_used, torch.ones(3))
    assert replica.model.never_used.grad is None


def test_scores_of_two_ranks_equal_those_of_one() -> None:
    one, two = _trained("fast", 1), _trained("fast", 2)
    assert one.scores.total[0] == two.scores.total[0] == sum(9 + step % 7 for step in range(1, STEPS + 1))
    assert one.scorer.values(one.scores.total) == pytest.approx(two.scorer.values(two.scores.total), abs=1e-3)


def test_batch_norm_counter_counts_steps_whatever_the_ranks() -> None:
    assert int(_trained("exact", 3, with_norm=True).model.norm.num_batches_tracked) == STEPS
