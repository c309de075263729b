"""Replicas that are not the same are found, and by name."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch

from dtrain.errors import DivergenceError
from dtrain.policy.verdict import verdict_of
from dtrain.train.replica import Replica
from tests.support.ranks import MixedTask, new_replica, spec, steps, train


class OwnMind(MixedTask):
    """Its optimizer is another one on each rank."""

    made = 0

    def optimizer(self, model, params):  # type: ignore[no-untyped-def]
        OwnMind.made += 1
        return torch.optim.SGD(model.parameters(), lr=0.01 * OwnMind.made)


class Noisy(MixedTask):
    """Its optimizer adds noise: torch's, so the same on each rank."""

    def optimizer(self, model, params):  # type: ignore[no-untyped-def]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        optimizer.register_step_post_hook(lambda *_: model.last.bias.data.add_(torch.randn(1)))
        return optimizer


def _weight(replica: Replica) -> None:
    replica.model.first.weight.data[3, 3] += 1e-7


def _buffer(replica: Replica) -> None:
    replica.model.norm.running_var[0] *= 1.0001


def _moment(replica: Replica) -> None:
    optimizer = replica._update.optimizer
    optimizer.state[replica.model.last.weight]["exp_avg"][0, 0] += 1.0


@pytest.mark.parametrize(
    ("damage", "odd", "world_size", "words"),
    [
        (_weight, 1, 2, "behind step 6, ranks 0, 1 of 2 have each other bits in first.weight"),
        (_weight, 2, 3, "behind step 6, rank 2 of 3 has other bits in first.weight"),
        (_buffer, 0, 3, "behind step 6, rank 0 of 3 has other bits in norm.running_var"),
        (_moment, 1, 3, "behind step 6, rank 1 of 3 has other bits in"),
    ],
)
def test_replica_that_differs_is_found_at_the_next_check_with_tensor_and_rank(
    damage: Callable[[Replica], None], odd: int, world_size: int, words: str
) -> None:
    job = spec(numerics="fast", train={"check_every": 3}, with_norm=True)
    replicas = [new_replica(job) for _ in range(world_size)]
    plans = list(steps(9))
    train(job, replicas, plans[:5])
    damage(replicas[odd])
    with pytest.raises(DivergenceError, match=re.escape(words)) as caught:
        train(job, replicas, plans)
    assert verdict_of(caught.value)[1] == "DIVERGENCE"
    assert {replica.progress.step for replica in replicas} == {6}
    assert not any(replica.is_dirty for replica in replicas)


def test_task_that_differs_between_ranks_is_found() -> None:
    job = spec(numerics="exact", train={"check_every": 2})
    replicas = [new_replica(job, OwnMind()) for _ in range(2)]
    with pytest.raises(
        DivergenceError, match=r"behind step 2, ranks 0, 1 of 2 have each other bits in never_used|kinds|first|last"
    ):
        train(job, replicas, list(steps(9)))


def test_random_optimizer_is_the_same_on_all_ranks() -> None:
    job = spec(numerics="exact", train={"check_every": 1}, with_dropout=True)
    two, three = ([new_replica(job, Noisy()) for _ in range(number)] for number in (2, 3))
    train(job, two, list(steps(9)))
    train(job, three, list(steps(9)))
    assert torch.equal(two[0].model.last.bias, three[2].model.last.bias)
