"""Same rows, same weights: one rank, several, idle ones, others half-way, a restored one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from dtrain.snapshot import encode_state
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Plan
from dtrain.train.replica import Replica
from tests.support.ranks import new_replica, spec, steps, train

STEPS = 40
MEMBERSHIPS: list[tuple[int, tuple[int, ...]]] = [(30, (2, 2)), (45, (1, 1, 1, 1)), (60, (4,)), (80, (1, 0, 3)), (100, (0, 4))]
"""Up to which step so many slices were each rank's: idle ranks, uneven shares, more and fewer ranks."""
EVERYTHING = {
    "numerics": "exact",
    "train": {
        "micro_batch_rows": 2,
        "clip_norm": 0.05,
        "weight_decay": 0.1,
        "schedule": {"name": "cosine", "warmup_steps": 10, "total_steps": 90, "floor": 0.1},
        "on_non_finite": "skip",
        "check_every": 7,
    },
    "with_norm": True,
    "with_running_norm": True,
    "with_dropout": True,
    "held_out": 0.2,
    "without_schedule": True,
}


def _trained(numerics: str, world_size: int, **options: object) -> Replica:
    job = spec(numerics=numerics, **options)  # type: ignore[arg-type]
    replicas = [new_replica(job) for _ in range(world_size)]
    train(job, replicas, list(steps(STEPS)))
    assert len({b"".join(encode_state(replica.state())) for replica in replicas}) == 1
    return replicas[0]


@cache
def _alone(numerics: str, *, with_norm: bool = False) -> Replica:
    """What one rank makes of it: others are compared with it."""
    return _trained(numerics, 1, with_norm=with_norm)


@cache
def _alone_for_long() -> Replica:
    """The same, of a hundred steps."""
    one = [new_replica(spec(numerics="fast"))]
    train(spec(numerics="fast"), one, list(steps(100)))
    return one[0]


@cache
def _many(numerics: str, world_size: int, *, with_norm: bool = False) -> Replica:
    """What several ranks make of it."""
    return _trained(numerics, world_size, with_norm=with_norm)


def _difference(a: Replica, b: Replica) -> float:
    pairs = list(zip(a.model.parameters(), b.model.parameters(), strict=True))
    apart = sum(float((x - y).detach().double().square().sum()) for x, y in pairs)
    whole = sum(float(y.detach().double().square().sum()) for _, y in pairs)
    return float((apart / whole) ** 0.5)


@pytest.mark.parametrize("with_norm", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_exact_any_number_of_ranks_gives_the_same_bits(world_size: int, with_norm: bool) -> None:
    one = _alone("exact", with_norm=with_norm)
    many = _many("exact", world_size, with_norm=with_norm)
    assert encode_state(one.state()) == encode_state(many.state())


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_fast_any_number_of_ranks_gives_the_same_weights_within_1e_6(world_size: int) -> None:
    job, plans = spec(numerics="fast"), list(steps(100))
    many = [new_replica(job) for _ in range(world_size)]
    train(job, many, plans)
    assert _difference(_alone_for_long(), many[-1]) <= 1e-6


def _relayed(job: JobSpec, plans: list[tuple[Plan, dict[str, Tensor]]]) -> Replica:
    """Trained through all memberships: a generation begins with the state that a member of the one before had."""
    last = [new_replica(job)]
    for stop, shares in MEMBERSHIPS:
        replicas = [new_replica(job) for _ in shares]
        for replica in replicas:
            replica.adopt(last[-1].state())
        train(job, replicas, plans[:stop], shares=shares)
        last = replicas
    return last[0]


def test_exact_gives_the_same_bits_through_changing_ranks_with_everything_that_a_step_can_do() -> None:
    job = spec(**EVERYTHING)  # type: ignore[arg-type]
    made = list(steps(100, rows=lambda step: 16 + 8 * (step % 2), held_out=lambda step: step % 4))
    plans = _with_infinite_rows(made, step=48)
    one = [new_replica(job)]
    train(job, one, plans)
    relayed = _relayed(job, plans)
    assert [entry.number for entry in relayed.tail if entry.skipped] == [48]
    assert relayed.held_out_scores.total[0] == sum(step % 4 for step in range(1, 101))
    assert encode_state(relayed.state()) == encode_state(one[0].state())


@pytest.mark.parametrize("option", ["micro_batch_rows", "clip_norm", "weight_decay", "schedule"])
def test_each_option_changes_the_weights(option: str) -> None:
    plans = list(steps(12, rows=lambda step: 16))
    without = {**EVERYTHING, "train": {k: v for k, v in EVERYTHING["train"].items() if k != option}}  # type: ignore[attr-defined]
    one, other = ([new_replica(spec(**options))] for options in (EVERYTHING, without))  # type: ignore[arg-type]
    train(spec(**EVERYTHING), one, plans)  # type: ignore[arg-type]
    train(spec(**without), other, plans)  # type: ignore[arg-type]
    assert _difference(one[0], other[0]) > 1e-6


def test_fast_gives_the_same_weights_within_1e_6_through_changing_ranks() -> None:
    job, plans = spec(numerics="fast"), list(steps(100))
    assert 0 < _difference(_relayed(job, plans), _alone_for_long()) <= 1e-6


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
    uninterrupted = _alone(numerics)
    if numerics == "exact":
        assert encode_state(resumed[2].state()) == encode_state(uninterrupted.state())
    assert _difference(resumed[2], uninterrupted) <= 1e-6


def test_parameter_that_no_rank_touched_keeps_its_value_and_no_gradient() -> None:
    replica = _many("exact", 2)
    assert torch.equal(replica.model.never_used, torch.ones(3))
    assert replica.model.never_used.grad is None


def test_scores_of_two_ranks_equal_those_of_one() -> None:
    one, two = _alone("fast"), _many("fast", 2)
    assert one.scores.total[0] == two.scores.total[0] == sum(9 + step % 7 for step in range(1, STEPS + 1))
    assert one.scorer.values(one.scores.total) == pytest.approx(two.scorer.values(two.scores.total), abs=1e-3)


def test_batch_norm_counter_counts_steps_whatever_the_ranks() -> None:
    assert int(_many("exact", 3, with_norm=True).model.norm.num_batches_tracked) == STEPS


def _with_infinite_rows(plans: list[tuple[Plan, dict[str, Tensor]]], *, step: int) -> list[tuple[Plan, dict[str, Tensor]]]:
    """The last row of `step` is infinite: only one rank sees that."""
    plan, columns = plans[step - 1]
    x = columns["x"].clone()
    x[-1] = float("inf")
    return [*plans[: step - 1], (plan, {**columns, "x": x}), *plans[step:]]


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_step_that_is_not_finite_is_skipped_by_all_and_a_replica_that_follows_the_log_is_the_same(numerics: str) -> None:
    is_exact = numerics == "exact"  # fast normalises a rank's own rows: other ranks, other weights
    job = spec(numerics=numerics, train={"on_non_finite": "skip"}, with_norm=is_exact)
    plans = _with_infinite_rows(list(steps(12)), step=5)
    two = [new_replica(job) for _ in range(2)]
    train(job, two, plans)
    entries = list(two[1].tail)
    assert [entry.number for entry in entries if entry.skipped == "non_finite"] == [5]
    assert two[0].progress.rows_skipped == plans[4][0].num_rows
    assert (
        two[0].scores.total[0] == two[0].progress.rows_trained == sum(plan.num_rows for plan, _ in plans) - plans[4][0].num_rows
    )
    follower = [new_replica(job)]
    train(job, follower, [(entry, columns) for entry, (_, columns) in zip(entries, plans, strict=True)])
    assert follower[0].progress == two[0].progress
    assert _difference(follower[0], two[0]) <= (0 if is_exact else 1e-6)


def test_skipped_step_moves_positions_and_log_alone() -> None:
    job = spec(numerics="exact", train={"on_non_finite": "skip"}, with_norm=True)
    one = [new_replica(job)]
    plans = _with_infinite_rows(list(steps(5)), step=5)
    train(job, one, plans[:4])
    before = one[0].state()
    train(job, one, plans)
    after = one[0].state()
    assert after.progress.positions != before.progress.positions
    assert encode_state(replace(after, progress=before.progress)) == encode_state(before)


def test_micro_batches_give_the_weights_of_whole_batches_within_1e_6() -> None:
    assert _difference(_trained("fast", 2, train={"micro_batch_rows": 3}), _alone("fast")) <= 1e-6


def _scored(job: JobSpec, world_size: int, *, held_out: int) -> Replica:
    replicas = [new_replica(job) for _ in range(world_size)]
    train(job, replicas, list(steps(STEPS, held_out=lambda _: held_out)))
    return replicas[0]


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_held_out_rows_change_nothing_but_their_scores(numerics: str) -> None:
    options = {"with_norm": True, "with_running_norm": True, "with_dropout": True}
    with_rows = _scored(spec(numerics=numerics, held_out=0.2, **options), 1, held_out=5)  # type: ignore[arg-type]
    without = [new_replica(spec(numerics=numerics, **options))]  # type: ignore[arg-type]
    train(spec(numerics=numerics, **options), without, list(steps(STEPS)))  # type: ignore[arg-type]
    ours, others = with_rows.state().tensors, without[0].state().tensors
    assert ours.keys() - others.keys() == {"held_out/total", "held_out/buckets"}
    assert all(torch.equal(ours[name], tensor) for name, tensor in others.items())
    assert with_rows.held_out_scores.total[0] == 5 * STEPS
    assert with_rows.model.training
    assert all(module.training for module in with_rows.model.modules())


def test_held_out_scores_are_those_of_the_model_before_the_step_in_evaluation_mode() -> None:
    job = spec(numerics="exact", held_out=0.2, with_norm=True, with_dropout=True)
    one, total = [new_replica(job)], 0.0
    for plan, columns in steps(6, held_out=lambda _: 3):
        model = one[0].model.eval()
        with torch.no_grad():
            outputs = model(columns["x"][-3:], columns["kind"][-3:])
        total += float(torch.nn.functional.binary_cross_entropy_with_logits(outputs, columns["y"][-3:], reduction="sum"))
        model.train()
        train(job, one, [(plan, columns)])
    assert float(one[0].held_out_scores.total[1]) == pytest.approx(total, rel=1e-5)
    assert one[0].held_out_scores.total[0] == 18


@pytest.mark.parametrize("world_size", [2, 4])
def test_held_out_scores_of_several_ranks_are_those_of_one(world_size: int) -> None:
    exact = [_scored(spec(numerics="exact", held_out=0.2), size, held_out=3) for size in (1, world_size)]
    assert encode_state(exact[0].state()) == encode_state(exact[1].state())
    fast = [_scored(spec(numerics="fast", held_out=0.2), size, held_out=3) for size in (1, world_size)]
    assert torch.allclose(fast[0].held_out_scores.total[:3], fast[1].held_out_scores.total[:3], rtol=1e-4)


def test_held_out_row_whose_loss_is_not_finite_stops_nothing() -> None:
    job = spec(numerics="fast", held_out=0.2)
    plan, columns = next(steps(1, held_out=lambda _: 1))
    columns["x"][-1] = float("inf")
    one = [new_replica(job)]
    train(job, one, [(plan, columns)])
    assert one[0].progress.rows_trained == plan.num_rows
    assert not torch.isfinite(one[0].held_out_scores.total[1])


@cache
def _normed(numerics: str, world_size: int, shares: tuple[int, ...] | None = None) -> Replica:
    job = spec(numerics=numerics, with_running_norm=True, train={"micro_batch_rows": 2})
    replicas = [new_replica(job) for _ in range(world_size)]
    train(job, replicas, _shifted(), shares=shares)
    return replicas[-1]


def _shifted() -> list[tuple[Plan, dict[str, Tensor]]]:
    """Values far from zero, of which a sum of squares would keep no digit of the variance."""
    scale, shift = torch.tensor([1, 10, 0.1, 1, 1, 1]), torch.tensor([0.0, 1e4, -5.0, 3e5, 0.0, 1.0])
    return [(plan, {**columns, "x": columns["x"] * scale + shift}) for plan, columns in steps(STEPS)]


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_running_norm_knows_mean_and_variance_of_every_row_behind_the_first_step(numerics: str) -> None:
    norm = _normed(numerics, 2).model.inputs
    rows = torch.cat([columns["x"] for _, columns in _shifted()[1:]]).double()
    assert int(norm.count) == rows.shape[0]
    assert torch.allclose(norm.mean.double(), rows.mean(dim=0), rtol=1e-6, atol=1e-5)
    assert torch.allclose(norm.variance.double(), rows.var(dim=0, correction=0), rtol=1e-2)


@pytest.mark.parametrize(("world_size", "shares"), [(2, None), (4, None), (3, (1, 0, 3))])
def test_running_norm_any_number_of_ranks_gives_the_same(world_size: int, shares: tuple[int, ...] | None) -> None:
    assert encode_state(_normed("exact", 1).state()) == encode_state(_normed("exact", world_size, shares).state())
    one, many = _normed("fast", 1).model.inputs, _normed("fast", world_size, shares).model.inputs
    assert torch.allclose(one.mean, many.mean, rtol=1e-5, atol=1e-5)
    assert torch.allclose(one.variance, many.variance, rtol=1e-4)
