"""A job taken up again: elsewhere, from an object store, and (faults.md, row 35) with other code, model or optimizer."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dtrain.checkpoint.places import open_store
from dtrain.job.status import Observation, Outcome
from dtrain.local import run
from dtrain.replay.replay import replay
from dtrain.stream.memory import MemorySource, MemoryTopic
from tests.support.audit import audit_spec, id_messages
from tests.support.object_store import BUCKET, SECRET, object_store

NUM_IDS = 1_000
CODE = """\
import json, torch, dtrain
from pathlib import Path
from torch import nn

SHAPE = json.loads(Path(__file__).with_name("shape.json").read_text())

class ResumeTask(dtrain.Task):
    features = dtrain.Schema({"id": "int64"})

    def model(self, params):
        weights = nn.Embedding(params["num_ids"], SHAPE.get("width", 1))
        nn.init.zeros_(weights.weight)
        return nn.ModuleDict({SHAPE.get("name", "ids"): weights})

    def optimizer(self, model, params):
        groups = [{"params": list(model.parameters())}] + [{"params": [torch.zeros(1)]}] * (SHAPE.get("groups", 1) - 1)
        return torch.optim.SGD(groups, lr=1.0)

    def forward(self, model, batch):
        return next(iter(model.values()))(batch["id"])

    def loss(self, outputs, batch):
        return outputs.sum(dim=1)
"""


class Scene:
    """A job over a topic in memory, its code in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.code = folder / "code"
        self.code.mkdir()
        (self.code / "resume_task.py").write_text(CODE)
        self.topic = MemoryTopic("ids")
        for message in id_messages(NUM_IDS, rows=20):
            self.topic.append(message)

    def source(self) -> MemorySource:
        return MemorySource(self._spec().source, {"ids": self.topic})

    def _spec(self) -> Any:
        spec = audit_spec(
            topic="ids",
            bootstrap="nowhere:1",
            folder=Path("unused"),
            num_ids=NUM_IDS,
            ends={0: NUM_IDS // 20},
            checkpoint={"every": 0.05},
        )
        return spec.model_copy(update={"task": "resume_task:ResumeTask", "code": str(self.code)})

    def run(self, place: str | Path, *, turns: int = 1_000_000, **shape: Any) -> Observation:
        """Go on in `place`, as in another process; told to stop after so many looks.

        The model is of this `shape`, which stands in a file beside the code that no digest is taken of.
        """
        (self.code / "shape.json").write_text(json.dumps(shape))
        sys.modules.pop("resume_task", None)
        left = iter(range(turns))
        return run(
            self._spec(),
            folder=place,
            on_status=lambda *_: None,
            should_stop=lambda: next(left, None) is None,
            source=self.source(),
        )

    def is_done_once(self, place: str | Path) -> bool:
        verdict = replay(open_store(place), source=self.source(), code=str(self.code))
        assert verdict.is_equal, verdict.sentence
        return (verdict.audit.lost, verdict.audit.doubled, verdict.rows) == (0, 0, NUM_IDS)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(sys, "path", list(sys.path))
    return Scene(tmp_path)


def test_job_goes_on_in_a_folder_that_was_moved_with_code_that_was_moved(scene: Scene, tmp_path: Path) -> None:
    assert scene.run(tmp_path / "here", turns=4).outcome is Outcome.STOPPED
    (tmp_path / "another machine").mkdir()
    shutil.move(tmp_path / "here", tmp_path / "another machine" / "there")
    shutil.move(scene.code, tmp_path / "another machine" / "code")
    scene.code = tmp_path / "another machine" / "code"
    place = tmp_path / "another machine" / "there"
    assert 0 < open_store(place).find(None).progress.rows_trained < NUM_IDS
    assert scene.run(place).outcome is Outcome.SUCCEEDED
    assert scene.is_done_once(place)
    assert not (tmp_path / "here").exists()


def test_job_in_a_bucket_survives_a_bad_day_and_goes_on(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    with object_store() as server:
        place = f"s3://{BUCKET}/{uuid4().hex}/job"
        assert scene.run(place, turns=4).outcome is Outcome.STOPPED
        for kind in ("500", "slow", "lost", "cut", "503"):
            server.will("", "", times=4)
            server.will("", kind)
        assert scene.run(place).outcome is Outcome.SUCCEEDED
        assert len(server.happened) >= 10
        assert scene.is_done_once(place)
        names = open_store(place).find(None).to_json()
    assert SECRET not in "".join(capfd.readouterr()) + str(names)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"width": 2}, "the task's model is not the checkpoint's: ids.weight differ"),
        ({"name": "records"}, "the task's model is not the checkpoint's: ids.weight, records.weight differ"),
        ({"groups": 2}, "the task's optimizer is not the checkpoint's"),
    ],
)
def test_job_with_another_model_or_optimizer_is_refused_and_harms_nothing(
    scene: Scene, tmp_path: Path, shape: dict[str, Any], words: str
) -> None:
    place = tmp_path / "job"
    scene.run(place, turns=4)
    before = open_store(place).find(None)
    ended = scene.run(place, **shape)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DRIFT")
    assert words in ended.message
    assert open_store(place).find(None) == before
    assert scene.run(place).outcome is Outcome.SUCCEEDED
    assert scene.is_done_once(place)


def test_job_with_other_code_is_refused_until_it_is_as_it_was(scene: Scene, tmp_path: Path) -> None:
    place = tmp_path / "job"
    scene.run(place, turns=4)
    (scene.code / "resume_task.py").write_text(CODE.replace('{"id": "int64"}', '{"id": "int64", "at": "int64"}'))
    ended = scene.run(place)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DRIFT")
    assert "--accept-code-change" in ended.message
    (scene.code / "resume_task.py").write_text(CODE)
    assert scene.run(place).outcome is Outcome.SUCCEEDED
    assert scene.is_done_once(place)
