"""What dtrain refuses of a task, and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dtrain.errors import NonFiniteError, TaskError
from dtrain.snapshot import encode_state
from dtrain.steplog.positions import Position
from dtrain.steplog.progress import Progress
from dtrain.train.collective import InlineCollective
from dtrain.train.loading import load_task
from dtrain.train.replica import Replica
from tests.support.ranks import PARTITION, MixedTask, batches, spec, steps


class MeanLoss(MixedTask):
    def loss(self, outputs, batch):  # type: ignore[no-untyped-def]
        return super().loss(outputs, batch).mean()


class NotATensor(MixedTask):
    def loss(self, outputs, batch):  # type: ignore[no-untyped-def]
        return 1.0


class Raises(MixedTask):
    def forward(self, model, batch):  # type: ignore[no-untyped-def]
        raise KeyError("colour")


class NanLoss(MixedTask):
    def loss(self, outputs, batch):  # type: ignore[no-untyped-def]
        return super().loss(outputs, batch) * float("nan")


def _step(task: MixedTask) -> Replica:
    job = spec(numerics="fast")
    replica = Replica(task, job, device=torch.device("cpu"))
    replica.stand_at(Progress(positions={PARTITION: Position(0)}))
    replica.join(InlineCollective())
    before = encode_state(replica.state())
    plan, columns = next(steps(1))
    try:
        replica.step(plan, batches(columns, rank=0, shares=(4,), job=job))
    finally:
        assert encode_state(replica.state()) == before
        assert replica.progress.plan_number == 0
    return replica


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        (
            MeanLoss(),
            TaskError,
            r"MeanLoss.loss gave shape \[\] for 10 rows, at step 1, rows of topic:0.*; return one loss a row",
        ),
        (NotATensor(), TaskError, "NotATensor.loss gave float"),
        (Raises(), TaskError, "Raises raised KeyError: 'colour'"),
        (NanLoss(), NonFiniteError, "the loss is NaN or infinite at step 1, rows of topic:0 from"),
    ],
)
def test_step_that_fails_changes_nothing_and_says_why(task: MixedTask, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        _step(task)


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("nosuch_a:Task", None, "cannot import nosuch_a"),
        (
            "broken_b:Task",
            "import nosuch_module",
            "ModuleNotFoundError.*if nosuch_module is of another package, name that in `req",
        ),
        ("syntax_c:Task", "def (", "SyntaxError"),
        ("empty_d:Task", "", "empty_d:Task is not a dtrain.Task"),
        ("plain_e:Plain", "class Plain: pass", "is not a dtrain.Task"),
        ("bare_f:Bare", "import dtrain\nclass Bare(dtrain.Task): pass", "has no `features`"),
        (
            "label_g:T",
            "import dtrain\nclass T(dtrain.Task):\n    features = dtrain.Schema({'x': 'float32'})\n    label = 'y'",
            "'y' is not among",
        ),
    ],
)
def test_loading_task_that_is_none_is_refused_with_a_fix(tmp_path: Path, name: str, source: str | None, words: str) -> None:
    if source is not None:
        (tmp_path / f"{name.split(':')[0]}.py").write_text(source)
    with pytest.raises(TaskError, match=words) as raised:
        load_task(name, code=str(tmp_path))
    assert raised.value.fix
