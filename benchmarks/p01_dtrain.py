"""P1's dtrain side: a rank's replica, stager and collective, driven as the trainer drives them, with its blocks in memory."""

from __future__ import annotations

import os
import time

import pyarrow as pa
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from benchmarks.p01_workload import NUM_BLOCKS, NUM_FEATURES, Numbers, PerceptronTask, arguments, rows, timed
from dtrain.policy.slices import even_shares, slices_of
from dtrain.spec.job import BatchSpec, CheckpointSpec, JobSpec, SourceSpec
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.train.group import GroupTerms, TorchCollective
from dtrain.train.replica import Replica
from dtrain.train.stager import Stager

PARTITION = Partition("memory", 0)


def main() -> None:
    """One rank."""
    args = arguments()
    torch.set_num_threads(1)
    task, spec = PerceptronTask(), _spec(args.hidden, rows=args.rows)
    replica = Replica(task, spec, device=torch.device("cpu"))
    replica.stand_at(Progress(positions={PARTITION: Position(0)}))
    group = TorchCollective(_terms())
    replica.join(group)
    stager = Stager(
        task.features,
        num_slices=spec.batch.num_slices,
        is_exact=False,
        slices=slices_of(group.rank, shares=even_shares(group.world_size, num_slices=spec.batch.num_slices)),
        device=replica.device,
    )
    blocks = {number: _block(x, y) for number, (x, y) in enumerate(rows(args.rows))}

    def step(number: int) -> None:
        pieces = [(number % NUM_BLOCKS, 0, args.rows)]
        batches = stager.stage(pieces, blocks, num_rows=args.rows)
        replica.step(_plan(number, num_rows=args.rows), batches)

    timed(step, args=args, model=replica.model)
    _await_the_others(group.world_size)


def _spec(hidden: list[int], *, rows: int) -> JobSpec:
    return JobSpec(
        name="p1",
        task="p01_workload:PerceptronTask",
        params={"hidden": list(hidden)},
        source=SourceSpec(topic="memory", bootstrap="localhost:9092"),
        batch=BatchSpec(rows=rows),
        checkpoint=CheckpointSpec(to="unused"),
    )


def _terms() -> GroupTerms:
    """The group that torchrun has called for; its agent keeps the store."""
    return GroupTerms(
        prefix="p1",
        host=os.environ["MASTER_ADDR"],
        port=int(os.environ["MASTER_PORT"]),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def _await_the_others(world_size: int) -> None:
    """Every rank has made its last step: one that leaves earlier would break the last collective of a slower one."""
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    store.add("done", 1)
    while store.add("done", 0) < world_size:
        time.sleep(0.01)


def _block(x: Numbers, y: Numbers) -> pa.RecordBatch:
    numbers = pa.array(x.reshape(-1))
    return pa.record_batch({"x": pa.FixedSizeListArray.from_arrays(numbers, NUM_FEATURES), "y": pa.array(y)})


def _plan(number: int, *, num_rows: int) -> Plan:
    """Step `number` takes one record of `num_rows` rows."""
    taken = RowRange(PARTITION, Position(number), Position(number + 1), num_rows, last_offset=number)
    return Plan(number + 1, StepKind.DATA, (taken,), num_rows)


if __name__ == "__main__":
    main()
