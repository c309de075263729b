"""Ranks in threads of one process, over real gloo groups; the same rows for any number of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Lock

import torch
from torch import Tensor, nn

import dtrain
from dtrain.policy.slices import even_shares, slices_of, spans_of
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.fates import LeftOut
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
        return MixedModel(**{name: params.get(name, False) for name in ("with_norm", "with_dropout", "with_running_norm")})

    def scheduler(self, optimizer, params):  # type: ignore[no-untyped-def]
        return None if params.get("without_schedule") else torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.99**step)

    def loss(self, outputs, batch):  # type: ignore[no-untyped-def]
        return nn.functional.binary_cross_entropy_with_logits(outputs, batch["y"], reduction="none")

    def predict(self, outputs, batch):  # type: ignore[no-untyped-def]
        return outputs.sigmoid()


class MixedModel(nn.Module):
    def __init__(self, *, with_norm: bool, with_dropout: bool, with_running_norm: bool) -> None:
        super().__init__()
        self.inputs = dtrain.RunningNorm(6) if with_running_norm else nn.Identity()
        self.kinds = nn.Embedding(5, 4)
        self.first = nn.Linear(10, 16)
        self.norm = nn.BatchNorm1d(16) if with_norm else nn.Identity()
        self.dropout = nn.Dropout(0.3 if with_dropout else 0.0)
        self.last = nn.Linear(16, 1)
        self.never_used = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        hidden = self.first(torch.cat([self.inputs(x), self.kinds(kind)], dim=1))
        return self.last(self.dropout(torch.relu(self.norm(hidden)))).squeeze(1)


def spec(
    *,
    numerics: str,
    num_slices: int = 4,
    train: Mapping[str, object] | None = None,
    held_out: float = 0.0,
    **params: object,
) -> JobSpec:
    """`train` goes into the section of that name, `params` to the task."""
    return JobSpec.model_validate(
        {
            "name": "numerics",
            "task": "tests.support.ranks:MixedTask",
            "params": {"lr": 0.01, **params},
            "source": {"topic": "topic", "bootstrap": "localhost:9092"},
            "batch": {"num_slices": num_slices},
            "train": {"numerics": numerics, "seed": 3, **(train or {})},
            "checkpoint": {"to": "/nowhere"},
            "evaluate": {"metrics": ["auroc", "accuracy"], "held_out": held_out},
        }
    )


def new_replica(job: JobSpec, task: dtrain.Task | None = None) -> Replica:
    torch.set_num_threads(1)  # as a rank has: more are slower by far where other processes run
    replica = Replica(task or MixedTask(), job, device=torch.device("cpu"))
    replica.stand_at(Progress(positions={PARTITION: Position(0)}))
    return replica


def steps(
    number: int,
    *,
    rows: Callable[[int], int] = lambda step: 9 + step % 7,
    held_out: Callable[[int], int] = lambda _: 0,
) -> Iterator[tuple[Plan, dict[str, Tensor]]]:
    """Plans from 1 on with the rows of each, the same every time; behind those that are trained, those that are held out."""
    offset = 0
    for step in range(1, number + 1):
        generator = torch.Generator().manual_seed(step)
        size, others = rows(step), held_out(step)
        x = torch.randn(size, 6, generator=generator)
        kind = torch.randint(0, 4, (size,), generator=generator)  # class 4 is never touched
        if others:
            x = torch.cat([x, 3 * torch.randn(others, 6, generator=generator)])
            kind = torch.cat([kind, torch.randint(0, 5, (others,), generator=generator)])
        y = (x.sum(dim=1) + kind > 1).float()
        end = Position(offset + size + others)
        item = RowRange(PARTITION, Position(offset), end, size, left_out=LeftOut(held_out=others))
        offset = end.offset
        yield Plan(step, StepKind.DATA, (item,), size), {"x": x, "kind": kind, "y": y}


def batches(
    columns: dict[str, Tensor], *, rank: int, shares: Sequence[int], job: JobSpec, num_held_out: int = 0
) -> list[SpanBatch]:
    """What `rank` computes of a step, as tensors of its own; the last `num_held_out` rows are held out."""
    size = columns["y"].shape[0] - num_held_out
    mine = slices_of(rank, shares=shares)
    made = []
    for first, num_rows in ((0, size), (size, num_held_out)):
        for s in spans_of(mine, num_rows=num_rows, num_slices=job.batch.num_slices, is_exact=job.train.numerics == "exact"):
            rows = slice(first + s.start, first + s.stop)
            made.append(SpanBatch(s, {name: column[rows].clone() for name, column in columns.items()}, first > 0))
    return made


def groups(world_size: int) -> list[Collective]:
    if world_size == 1:
        return [InlineCollective()]
    rendezvous = Rendezvous("127.0.0.1")
    prefix = f"test-{next(_prefixes)}"
    terms = [GroupTerms(prefix, "127.0.0.1", rendezvous.port, rank, world_size) for rank in range(world_size)]
    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(TorchCollective, terms))


class Turns:
    """`inner` for ranks that take turns: in threads they share torch's random numbers, which each seeds for itself."""

    def __init__(self, inner: Collective, turn: Lock) -> None:
        self._inner, self._turn = inner, turn
        self.rank, self.world_size, self.abandon = inner.rank, inner.world_size, inner.abandon

    def all_reduce_(self, buffer: Tensor) -> None:
        self._turn.release()
        try:
            self._inner.all_reduce_(buffer)
        finally:
            self._turn.acquire()


def train(
    job: JobSpec,
    replicas: Sequence[Replica],
    plans: Sequence[tuple[Plan, dict[str, Tensor]]],
    *,
    shares: Sequence[int] | None = None,
) -> None:
    """Every replica, in a thread of its own, applies the plans behind its own place; `shares` are even unless given."""
    world_size, turn = len(replicas), Lock()
    given = shares or even_shares(world_size, num_slices=job.batch.num_slices)

    def run(rank: int, group: Collective) -> None:
        replica = replicas[rank]
        replica.join(Turns(group, turn))
        with turn:
            for plan, columns in plans:
                if plan.number > replica.progress.plan_number:
                    held_out = sum(item.left_out.held_out for item in plan.ranges)
                    replica.step(plan, batches(columns, rank=rank, shares=given, job=job, num_held_out=held_out))

    with ThreadPoolExecutor(world_size) as pool:
        list(pool.map(run, range(world_size), groups(world_size)))
