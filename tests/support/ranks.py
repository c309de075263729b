"""Ranks in threads of one process, over real gloo groups; the same rows for any number of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import torch
from torch import Tensor, nn

import dtrain
from dtrain.policy.slices import spans_of
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.train.collective import Collective, InlineCollective
from dtrain.train.gradient import SpanBatch
from dtrain.train.group import GroupTerms, Rendezvous, TorchCollective
from dtrain.train.replica import Replica

PARTITION = Partition("topic", 0)
_prefixes = count()


class MixedTask(dtrain.Task):
    """Embedding, batch normalisation, an untouched parameter, a schedule: what makes ranks differ where something is wrong."""

    features = dtrain.Schema({"x": "float32[6]", "kind": "int64", "y": "float32"})
    label = "y"

    def model(self, params):  # type: ignore[no-untyped-def]
        return MixedModel(with_norm=params.get("with_norm", False))

    def scheduler(self, optimizer, params):  # type: ignore[no-untyped-def]
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.99**step)

    def loss(self, outputs, batch):  # type: ignore[no-untyped-def]
        return nn.functional.binary_cross_entropy_with_logits(outputs, batch["y"], reduction="none")

    def predict(self, outputs, batch):  # type: ignore[no-untyped-def]
        return outputs.sigmoid()


class MixedModel(nn.Module):
    def __init__(self, *, with_norm: bool) -> None:
        super().__init__()
        self.kinds = nn.Embedding(5, 4)
        self.first = nn.Linear(10, 16)
        self.norm = nn.BatchNorm1d(16) if with_norm else nn.Identity()
        self.last = nn.Linear(16, 1)
        self.never_used = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        hidden = self.first(torch.cat([x, self.kinds(kind)], dim=1))
        return self.last(torch.relu(self.norm(hidden))).squeeze(1)


def spec(*, numerics: str, num_slices: int = 4, **params: object) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "numerics",
            "task": "tests.support.ranks:MixedTask",
            "params": {"lr": 0.01, **params},
            "source": {"topic": "topic", "bootstrap": "localhost:9092"},
            "batch": {"num_slices": num_slices},
            "train": {"numerics": numerics, "seed": 3},
            "checkpoint": {"to": "/nowhere"},
            "evaluate": {"metrics": ["auroc", "accuracy"]},
        }
    )


def new_replica(job: JobSpec) -> Replica:
    replica = Replica(MixedTask(), job, device=torch.device("cpu"))
    replica.stand_at(Progress(positions={PARTITION: Position(0)}))
    return replica


def steps(number: int, *, rows: Callable[[int], int] = lambda step: 9 + step % 7) -> Iterator[tuple[Plan, dict[str, Tensor]]]:
    """Plans from 1 on with the rows of each: the same every time."""
    offset = 0
    for step in range(1, number + 1):
        generator = torch.Generator().manual_seed(step)
        size = rows(step)
        x = torch.randn(size, 6, generator=generator)
        kind = torch.randint(0, 4, (size,), generator=generator)  # class 4 is never touched
        y = (x.sum(dim=1) + kind > 1).float()
        item = RowRange(PARTITION, Position(offset), Position(offset + size), size)
        offset += size
        yield Plan(step, StepKind.DATA, (item,), size), {"x": x, "kind": kind, "y": y}


def batches(replica: Replica, columns: dict[str, Tensor], *, rank: int, world_size: int, job: JobSpec) -> list[SpanBatch]:
    size = columns["y"].shape[0]
    spans = spans_of(
        rank, world_size=world_size, num_rows=size, num_slices=job.batch.num_slices, is_exact=job.train.numerics == "exact"
    )
    return [SpanBatch(s, {name: column[s.start : s.stop].clone() for name, column in columns.items()}) for s in spans]


def groups(world_size: int) -> list[Collective]:
    if world_size == 1:
        return [InlineCollective()]
    rendezvous = Rendezvous("127.0.0.1")
    prefix = f"test-{next(_prefixes)}"
    terms = [GroupTerms(prefix, "127.0.0.1", rendezvous.port, rank, world_size) for rank in range(world_size)]
    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(TorchCollective, terms))


def train(job: JobSpec, replicas: Sequence[Replica], plans: Sequence[tuple[Plan, dict[str, Tensor]]]) -> None:
    """Every replica, in a thread of its own, applies the plans behind its own place."""
    world_size = len(replicas)

    def run(rank: int, group: Collective) -> None:
        replica = replicas[rank]
        replica.join(group)
        for plan, columns in plans:
            if plan.number > replica.progress.plan_number:
                replica.step(plan, batches(replica, columns, rank=rank, world_size=world_size, job=job))

    with ThreadPoolExecutor(world_size) as pool:
        list(pool.map(run, range(world_size), groups(world_size)))
