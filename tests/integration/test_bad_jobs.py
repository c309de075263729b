"""Jobs that cannot go well: one clear sentence, nothing lost, and where it can be put right, the job goes on from there."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtrain.checkpoint.places import open_store
from dtrain.job.status import Observation, Outcome
from dtrain.local import run
from dtrain.spec.job import JobSpec
from tests.support.audit import audit_spec, id_messages, times_trained
from tests.support.kafka import Kafka

NUM_IDS = 200
TASK = """
import torch, dtrain
from torch import nn

class Fine(dtrain.Task):
    features = dtrain.Schema({"id": "int64"})
    def model(self, params): return nn.Embedding(1000, 1)
    def forward(self, model, batch): return model(batch["id"]).squeeze(1)
    def loss(self, outputs, batch): return outputs

class MeanLoss(Fine):
    def loss(self, outputs, batch): return outputs.mean()

class NanLoss(Fine):
    def loss(self, outputs, batch): return outputs * float("nan")

class WantsMore(Fine):
    features = dtrain.Schema({"id": "int64", "colour": "float32"})
"""


@pytest.fixture
def topic(kafka: Kafka) -> str:
    name = kafka.new_topic()
    kafka.produce(name, 0, id_messages(NUM_IDS, rows=20))
    return name


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / f"bad_tasks_{tmp_path.name.replace('-', '_')}.py").write_text(TASK)
    return folder


def _spec(kafka: Kafka, topic: str, tmp_path: Path, **changes: Any) -> JobSpec:
    ends = {0: NUM_IDS // 20}
    return audit_spec(topic=topic, bootstrap=kafka.bootstrap, folder=tmp_path / "c", num_ids=NUM_IDS, ends=ends, **changes)


def _run(spec: JobSpec, tmp_path: Path) -> Observation:
    return run(spec, folder=tmp_path / "c" / "job", on_status=lambda *_: None, should_stop=lambda: False)


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("task", "outcome", "reason", "words"),
    [
        ("MeanLoss", Outcome.BLOCKED, "TASK", "MeanLoss.loss gave shape [] for"),
        ("NanLoss", Outcome.BLOCKED, "NON_FINITE", "the loss is NaN or infinite at step 1"),
        ("WantsMore", Outcome.BLOCKED, "BAD_RECORDS", "colour"),
        ("Missing", Outcome.BLOCKED, "TASK", "is not a dtrain.Task"),
    ],
)
def test_job_with_a_bad_task_ends_with_one_sentence(
    kafka: Kafka, topic: str, code: Path, tmp_path: Path, task: str, outcome: Outcome, reason: str, words: str
) -> None:
    module = next(code.glob("*.py")).stem
    spec = _spec(kafka, topic, tmp_path).model_copy(update={"task": f"{module}:{task}", "code": str(code), "params": {}})
    ended = _run(spec, tmp_path)
    assert (ended.outcome, ended.reason) == (outcome, reason)
    assert words in ended.message


def test_job_on_an_unknown_topic_says_so(kafka: Kafka, tmp_path: Path) -> None:
    ended = _run(_spec(kafka, "no-such-topic", tmp_path), tmp_path)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "NOT_FOUND")
    assert "no-such-topic" in ended.message


def test_job_without_a_broker_names_its_address(kafka: Kafka, tmp_path: Path, free_port: int) -> None:
    ended = _run(_spec(kafka, "topic", tmp_path, source={"bootstrap": f"127.0.0.1:{free_port}"}), tmp_path)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "UNAVAILABLE")
    assert str(free_port) in ended.message


def test_job_with_a_bad_record_stops_and_goes_on_when_it_is_allowed(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    kafka.produce(topic, 0, [b"not arrow", *id_messages(NUM_IDS, rows=20)])
    ends = {"end": {0: 2 * NUM_IDS // 20 + 1}}
    strict = _spec(kafka, topic, tmp_path, source=ends)
    ended = _run(strict, tmp_path)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "BAD_RECORDS")
    assert f"{topic}:0:{NUM_IDS // 20}:0" in ended.message
    rejected = kafka.new_topic()
    lenient = _spec(kafka, topic, tmp_path, source={**ends, "on_bad_record": {"send_to": rejected, "budget": 0.01}})
    assert _run(lenient, tmp_path).outcome is Outcome.SUCCEEDED
    assert set(times_trained(open_store(tmp_path / "c" / "job"))) == {2}  # every id came twice, and was trained twice


def test_job_over_its_budget_of_bad_records_is_blocked(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    kafka.produce(topic, 0, [b"?"] * 30)
    dead_letters = {"send_to": kafka.new_topic(), "budget": 0.02}
    ended = _run(
        _spec(kafka, topic, tmp_path, source={"end": {0: NUM_IDS // 20 + 30}, "on_bad_record": dead_letters}), tmp_path
    )
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "BAD_RECORDS")
    assert "more than the budget of 0.02" in ended.message


def test_job_on_a_full_disk_is_blocked_and_goes_on_when_there_is_room(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    folder = tmp_path / "c" / "job"
    folder.mkdir(parents=True)
    (folder / "blobs").write_text("a file where the folder must be")
    ended = _run(_spec(kafka, topic, tmp_path), tmp_path)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "STORAGE")
    assert str(folder) in ended.message
    (folder / "blobs").unlink()
    assert _run(_spec(kafka, topic, tmp_path), tmp_path).outcome is Outcome.SUCCEEDED
    assert set(times_trained(open_store(folder))) == {1}


def test_job_that_is_at_its_end_is_there_whatever_became_of_its_topic(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    assert _run(_spec(kafka, topic, tmp_path), tmp_path).outcome is Outcome.SUCCEEDED
    kafka.recreate(topic)
    kafka.produce(topic, 0, id_messages(NUM_IDS, rows=10))
    assert (
        _run(_spec(kafka, topic, tmp_path), tmp_path).outcome is Outcome.SUCCEEDED
    )  # its end was settled once, and it is there
    assert open_store(tmp_path / "c" / "job").find(None).is_final


def test_job_json_rows_and_arrow_rows_train_alike(kafka: Kafka, topic: str, tmp_path: Path) -> None:
    other = kafka.new_topic()
    kafka.produce(other, 0, [json.dumps({"id": number, "more": "ignored"}).encode() for number in range(NUM_IDS)])
    spec = _spec(kafka, other, tmp_path, source={"format": "json", "end": {0: NUM_IDS}})
    assert _run(spec, tmp_path).outcome is Outcome.SUCCEEDED
    assert set(times_trained(open_store(tmp_path / "c" / "job"))) == {1}
