"""`dtrain local` on a real topic, interrupted and taken up again; and the proofs of what it has left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dtrain.cli.exits import Exit
from dtrain.cli.main import run
from tests.support.commands import as_a_process
from tests.support.kafka import Kafka

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
TASK = """\
import dtrain
from torch import nn

class Line(dtrain.Task):
    features = dtrain.Schema({"x": "float32[2]", "y": "float32"})
    label = "y"
    def model(self, params): return Model()
    def loss(self, outputs, batch): return (outputs - batch["y"]) ** 2

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 1)
    def forward(self, x): return self.line(x).squeeze(1)
"""
JOB = """\
name: line
task: line_of_proofs:Line
source: {{topic: {topic}, bootstrap: "{bootstrap}", format: json, start: earliest}}
batch: {{rows: 16, max_wait: 50ms}}
train: {{numerics: exact}}
checkpoint: {{to: checkpoints, every: 500ms}}
"""


@pytest.fixture(scope="module")
def folder(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job file beside its task, on a topic of 400 rows, after `local` ran it twice and was interrupted twice."""
    folder, topic = tmp_path_factory.mktemp("job"), kafka.new_topic(partitions=2)
    (folder / "line_of_proofs.py").write_text(TASK)
    (folder / "job.yaml").write_text(JOB.format(topic=topic, bootstrap=kafka.bootstrap))
    for turn in range(2):
        for partition in range(2):
            kafka.produce(topic, partition, [json.dumps({"x": [i, 1], "y": 2 * i + 1}).encode() for i in range(100)])
        last = interrupt(folder, rows=200 * (turn + 1))
        assert (last["outcome"], last["rows_trained"], last["attempt"]) == ("stopped", 200 * (turn + 1), turn + 1)
    return folder


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DTRAIN_HOME": str(folder / "home")}
    words = (sys.executable, "-m", "dtrain.cli.main", *words)
    return subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupt(folder: Path, *, rows: int) -> dict[str, Any]:
    """What `local` says last when it gets SIGINT after so many rows."""
    with command(folder, "local", "job.yaml", "-o", "json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["rows_trained"] >= rows:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED, err
    assert "the same command goes on from there" in err
    value: dict[str, Any] = json.loads(out.splitlines()[-1])
    return value


@pytest.fixture
def answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What a command in `folder` prints as JSON."""

    def answer(*words: str, code: int = Exit.OK) -> Any:
        capsys.readouterr()
        with as_a_process(folder, DTRAIN_HOME=str(folder / "home")):
            ended = run([*words, "-o", "json"])
        out, err = capsys.readouterr()
        assert ended == code, err
        return json.loads(out)

    return answer


def test_pinned_checkpoint_says_so_until_that_is_undone(answer: Callable[..., Any]) -> None:
    pinned = answer("pin", "--dir", "checkpoints/line")
    assert [one["is_pinned"] for one in pinned] == [True]
    assert answer("checkpoints", "--dir", "checkpoints/line")[-1]["is_pinned"]
    assert not answer("pin", pinned[0]["name"], "--undo", "--dir", "checkpoints/line")[0]["is_pinned"]


def test_checkpoints_and_verify_agree_that_all_is_sound(answer: Callable[..., Any]) -> None:
    names = [one["name"] for one in answer("checkpoints", "--dir", "checkpoints/line")]
    verified = answer("verify", "--dir", "checkpoints/line")
    assert [one["name"] for one in verified if one["is_sound"]] == names
    assert verified[-1]["rows_trained"] == 400


def test_replay_proves_the_weights_across_the_interruption(answer: Callable[..., Any]) -> None:
    verdict = answer("replay", "--dir", "checkpoints/line")
    assert verdict["is_equal"]
    assert (verdict["rows"], verdict["audit"]["lost"], verdict["audit"]["doubled"]) == (400, 0, 0)


def test_verify_of_a_damaged_checkpoint_names_it_and_fails(folder: Path, answer: Callable[..., Any]) -> None:
    newest = answer("checkpoints", "--dir", "checkpoints/line")[-1]["name"]
    manifest = (folder / "checkpoints" / "line" / "manifests" / f"{newest}.json").read_text()
    blob = next(path for path in (folder / "checkpoints" / "line" / "blobs").iterdir() if path.stem in manifest)
    blob.chmod(0o600)
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        verified = answer("verify", newest, "--dir", "checkpoints/line", code=Exit.CORRUPT)
        assert [(one["name"], one["is_sound"]) for one in verified] == [(newest, False)]
        assert "does not match its digest" in verified[0]["problem"]
    finally:
        blob.write_bytes(content)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [("source.topic=absent", "has no topic 'absent'"), ("source.bootstrap=127.0.0.1:1", "no Kafka answers at 127.0.0.1:1")],
)
def test_local_without_its_stream_says_one_clear_sentence(
    folder: Path, setting: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with as_a_process(folder, DTRAIN_HOME=str(folder / "home")):
        assert run(["local", "job.yaml", "--set", "name=lost", "--set", setting]) == Exit.JOB
    out, err = capsys.readouterr()
    assert err.startswith("lost is BLOCKED (")
    assert reason in err
    assert "Traceback" not in out + err
