"""Shuffled rows: the same weights for any number of ranks, and for those that begin in the middle of a span."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pyarrow as pa
import pytest
import torch

from dtrain.data.schema import Schema
from dtrain.policy.cutting import Cutter
from dtrain.policy.dealing import Dealer, Dealt
from dtrain.policy.slices import slices_of
from dtrain.snapshot import encode_state
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.positions import Position
from dtrain.steplog.progress import Progress
from dtrain.train.replica import Replica
from dtrain.train.stager import Stager
from tests.support.blocks import block
from tests.support.ranks import PARTITION, MixedTask, Turns, groups, new_replica, spec, steps

NUM_ROWS, ROWS, SPAN_ROWS = 200, 8, 48
"""Five spans: four of six parts, and one of eight rows."""


def _batch() -> pa.RecordBatch:
    (_, columns), schema = next(steps(1, rows=lambda _: NUM_ROWS)), Schema(MixedTask.features.to_json())
    arrays = {name: pa.array(column.flatten().numpy()) for name, column in columns.items()}
    arrays["x"] = pa.FixedSizeListArray.from_arrays(arrays["x"], 6)
    return pa.RecordBatch.from_arrays([arrays[field.name] for field in schema.tensors], schema=schema.arrow)


def _job(numerics: str) -> JobSpec:
    job = spec(numerics=numerics, with_norm=True, with_running_norm=numerics == "exact", with_dropout=numerics == "exact")
    return job.model_copy(update={"batch": job.batch.model_copy(update={"rows": ROWS, "shuffle_rows": SPAN_ROWS})})


def _dealt(progress: Progress, *, block_rows: int, is_shuffled: bool = True) -> tuple[list[Dealt], dict[int, pa.RecordBatch]]:
    """Every step behind `progress`, and the blocks that they are of."""
    everything, positions = _batch(), progress.positions
    left = progress.span.num_steps(ROWS) if progress.span else 0
    cutter = Cutter(
        positions=positions,
        ends={PARTITION: Position(NUM_ROWS)},
        rows=SPAN_ROWS,
        max_wait_s=60.0,
        is_strict=True,
        step=progress.step + left,
        step_rows=ROWS if is_shuffled else None,
    )
    dealer, blocks = Dealer(cutter, seed=3 if is_shuffled else None, span=progress.span), {}
    if dealer.missing:
        (item,) = dealer.missing
        blocks[10**6] = everything.slice(item.start.offset, item.num_rows)
        dealer.reopen([(10**6, 0, item.num_rows)], exhausted=())
    for first in range(positions[PARTITION].offset, NUM_ROWS, block_rows):
        stop = min(first + block_rows, NUM_ROWS)
        blocks[first] = everything.slice(first, stop - first)
        cutter.add(first, block(PARTITION, first, stop), now_s=0.0)
    dealt = []
    while (each := dealer.deal(now_s=0.0)) is not None:
        dealt.append(each)
    return dealt, blocks


def _train(
    job: JobSpec,
    replicas: Sequence[Replica],
    *,
    shares: Sequence[int],
    num_steps: int = 10**6,
    block_rows: int = 7,
    **options: bool,
) -> None:
    """Every replica, in a thread of its own, trains so many steps from where all of them stand."""
    progress = replicas[0].progress
    dealt, blocks = _dealt(progress, block_rows=block_rows, **options)
    turn = Lock()

    def run(rank: int, group: object) -> None:
        replica = replicas[rank]
        stager = Stager(
            MixedTask.features,
            num_slices=job.batch.num_slices,
            is_exact=replica.is_exact,
            slices=slices_of(rank, shares=shares),
            device=torch.device("cpu"),
        )
        replica.join(Turns(group, turn))  # type: ignore[arg-type]
        with turn:
            for each in dealt[:num_steps]:
                number = replica.progress.plan_number + 1
                plan = Plan(number, StepKind.DATA, each.cut.ranges, each.num_rows, part=each.part)
                pieces, part = each.cut.pieces, each.part
                keys = stager.keys(pieces, num_rows=plan.num_rows, part=part)
                needed = {key: blocks[key] for key in keys}
                replica.step(plan, stager.stage(pieces, needed, num_rows=plan.num_rows, part=part))

    with ThreadPoolExecutor(len(replicas)) as pool:
        list(pool.map(run, range(len(replicas)), groups(len(replicas))))
    assert len({b"".join(encode_state(replica.state())) for replica in replicas}) == 1


def _trained(numerics: str, shares: Sequence[int], **options: int) -> Replica:
    job = _job(numerics)
    replicas = [new_replica(job) for _ in shares]
    _train(job, replicas, shares=shares, **options)  # type: ignore[arg-type]
    return replicas[0]


def _difference(a: Replica, b: Replica) -> float:
    pairs = list(zip(a.model.parameters(), b.model.parameters(), strict=True))
    apart = sum(float((x - y).detach().double().square().sum()) for x, y in pairs)
    return float((apart / sum(float(y.detach().double().square().sum()) for _, y in pairs)) ** 0.5)


@pytest.mark.parametrize("shares", [(2, 2), (1, 0, 3), (1, 1, 1, 1)])
def test_exact_any_number_of_ranks_and_any_blocks_give_the_same_bits(shares: tuple[int, ...]) -> None:
    one, many = _trained("exact", (4,), block_rows=200), _trained("exact", shares, block_rows=5)
    assert one.progress.rows_trained == NUM_ROWS
    assert one.progress.span is None
    assert encode_state(one.state()) == encode_state(many.state())


def test_fast_two_ranks_and_an_idle_one_give_the_same_weights_within_1e_6() -> None:
    job = spec(numerics="fast")
    one, many = [new_replica(job)], [new_replica(job) for _ in range(3)]
    _train(job, one, shares=(4,))
    _train(job, many, shares=(2, 2, 0))
    assert 0 < _difference(one[0], many[0]) <= 1e-6


@pytest.mark.parametrize("stops", [(3,), (1, 5, 7), (6, 12), (2, 3, 4, 23)])
def test_exact_others_that_go_on_from_the_middle_of_a_span_give_the_same_bits(stops: tuple[int, ...]) -> None:
    job, shares, last = _job("exact"), ((2, 2), (4,), (1, 0, 3)), [new_replica(_job("exact"))]
    for index, stop in enumerate((*stops, 10**6)):
        state, share = last[0].state(), shares[index % len(shares)]
        assert (state.progress.span is not None) == (state.progress.step % 6 > 0)
        last = [new_replica(job) for _ in share]
        for replica in last:
            replica.adopt(state)
        _train(job, last, shares=share, num_steps=stop - state.progress.step, block_rows=3 + index)
    assert encode_state(last[0].state()) == encode_state(_trained("exact", (4,)).state())


def test_shuffled_rows_make_other_weights_than_rows_as_they_come() -> None:
    job = spec(numerics="exact")
    one, other = [new_replica(job)], [new_replica(job)]
    _train(job, one, shares=(4,))
    _train(job, other, shares=(4,), is_shuffled=False)
    assert one[0].progress.rows_trained == other[0].progress.rows_trained
    assert _difference(one[0], other[0]) > 1e-6
