"""User code that means no good: the step fails alone, says where in that code it was and for which rows, and nothing has changed."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from dtrain.errors import TaskError
from dtrain.snapshot import encode_state
from dtrain.train.replica import Replica
from tests.support.ranks import MixedTask, batches, groups, new_replica, spec, steps

PLANS = list(steps(20))


class Raises(MixedTask):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        return _inner(batch)


def _inner(batch):  # type: ignore[no-untyped-def]
    return batch["colour"]


class RaisesBehindTheForward(MixedTask):
    def loss(self, outputs, batch):  # type: ignore[no-untyped-def]
        raise ValueError("no loss today")


class Exits(MixedTask):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        sys.exit(3)


class EatsMemory(MixedTask):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        return bytearray(1 << 62)


class EatsTensors(MixedTask):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        return torch.empty(1 << 58)


class WrongShape(MixedTask):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        return model(batch["x"][:, :5], batch["kind"])


class ExitsInTheOptimizer(MixedTask):
    def optimizer(self, model, params):  # type: ignore[no-untyped-def]
        optimizer = super().optimizer(model, params)
        optimizer.register_step_pre_hook(lambda *_: sys.exit("enough"))
        return optimizer


class Grows(MixedTask):
    """At step 5 its model gets one parameter more."""

    count = 0

    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        self.count += 1
        if self.count == 5:
            model.extra = nn.Parameter(torch.zeros(2))
        return super().forward(model, batch)


class Replaces(Grows):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        model.last.bias = nn.Parameter(torch.zeros(1))
        return super().forward(model, batch)


class Thaws(Grows):
    def model(self, params):  # type: ignore[no-untyped-def]
        model = super().model(params)
        model.first.weight.requires_grad_(False)
        return model

    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        model.first.weight.requires_grad_(True)
        return MixedTask.forward(self, model, batch)


class Lazy(MixedTask):
    def model(self, params):  # type: ignore[no-untyped-def]
        return nn.LazyLinear(1)


class Sparse(MixedTask):
    def model(self, params):  # type: ignore[no-untyped-def]
        model = super().model(params)
        model.kinds = nn.Embedding(5, 4, **params["kinds"])
        return model


class SparseAlone(MixedTask):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        return nn.functional.embedding(batch["kind"], model.kinds.weight, sparse=True).sum(dim=1)


def _replica(task: MixedTask, **params: object) -> Replica:
    replica = new_replica(spec(numerics="fast", **params), task)
    replica.join(*groups(1))
    return replica


def _train(replica: Replica, *, number: int = 1) -> None:
    job = spec(numerics="fast")
    for plan, columns in PLANS[:number]:
        replica.step(plan, batches(columns, rank=0, shares=(4,), job=job))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Raises(), "Raises raised KeyError: 'colour', at step 1, rows of topic:0 from (0, 0) to (10, 0)"),
        (Raises(), f'{__file__}:{_inner.__code__.co_firstlineno + 1}, in _inner: return batch["colour"]'),
        (RaisesBehindTheForward(), "in loss: raise ValueError("),
        (Exits(), "Exits raised SystemExit: 3, at step 1"),
        (EatsMemory(), "EatsMemory raised MemoryError: , at step 1"),
        (EatsMemory(), "set `train.micro_batch_rows`"),
        (EatsTensors(), "EatsTensors raised RuntimeError"),
        (WrongShape(), "shapes cannot be multiplied"),
    ],
)
def test_step_that_raises_changes_nothing_and_says_where(task: MixedTask, words: str) -> None:
    replica = _replica(task, with_norm=True)
    before = encode_state(replica.state())
    with pytest.raises(TaskError) as caught:
        _train(replica)
    assert words in str(caught.value)
    assert encode_state(replica.state()) == before
    assert not replica.is_dirty


def test_optimizer_that_exits_is_told_and_leaves_a_dirty_replica() -> None:
    replica = _replica(ExitsInTheOptimizer())
    with pytest.raises(TaskError, match="raised in its optimizer or schedule SystemExit: enough"):
        _train(replica)
    assert replica.is_dirty


@pytest.mark.parametrize(("task", "name"), [(Grows(), "extra"), (Replaces(), "last.bias"), (Thaws(), "first.weight")])
def test_model_that_changes_while_it_trains_is_refused_by_name(task: MixedTask, name: str) -> None:
    with pytest.raises(TaskError, match=f"the model is not as it was built: {name}, at step .*; make every parameter"):
        _train(_replica(task), number=20)


def test_model_that_has_changed_cannot_be_saved() -> None:
    replica = _replica(Grows())
    _train(replica, number=6)
    with pytest.raises(TaskError, match="not as it was built: extra"):
        replica.snapshot()


@pytest.mark.parametrize(("kinds", "words"), [({"sparse": True}, "sparse=True"), ({"max_norm": 1.0}, "max_norm")])
def test_embedding_that_a_step_cannot_sum_or_undo_is_refused_by_name(kinds: dict[str, object], words: str) -> None:
    with pytest.raises(TaskError, match=f"the embedding kinds has {words}; leave it out"):
        _replica(Sparse(), kinds=kinds)


def test_gradient_that_is_sparse_is_refused_by_name_and_changes_nothing() -> None:
    replica = _replica(SparseAlone())
    before = encode_state(replica.state())
    with pytest.raises(TaskError, match=r"the gradient of kinds\.weight is sparse, at step 1, rows of topic:0"):
        _train(replica)
    assert encode_state(replica.state()) == before


def test_model_without_shapes_is_refused_by_name() -> None:
    with pytest.raises(TaskError, match="weight, bias have no shape yet"):
        _replica(Lazy())
