"""Code from a user's folder to weights, through a real control plane, Ray and Kafka; the folder is gone before anybody trains."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from dtrain.checkpoint.places import open_store
from dtrain.client.client import Client
from dtrain.code.digest import digest_code
from dtrain.errors import DriftError
from dtrain.job.lifecycle import State
from dtrain.replay.replay import replay
from dtrain.spec.job import JobSpec
from dtrain.stream.sources import open_source
from tests.support.audit import TASK_FILES, audit_spec, id_messages, times_trained
from tests.support.code import write_code
from tests.support.controlled import ControlPlane
from tests.support.kafka import Kafka

NUM_IDS = 400
ROWS = 10
TASK = """
import json
from pathlib import Path

from audit_task import AuditTask
from travelling.factor import FACTOR

PLUS = json.loads(Path(__file__).with_name("plus.json").read_text())


class Travelling(AuditTask):
    def loss(self, outputs, batch):
        return (FACTOR + PLUS) * super().loss(outputs, batch)
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plane(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    started = ControlPlane(tmp_path_factory.mktemp("plane"))
    yield started
    started.kill()


def code_of(folder: Path, *, factor: int, plus: int) -> Path:
    """The same modules, in another version."""
    files = {"travelling/__init__.py": "", "travelling/factor.py": f"FACTOR = {factor}\n", "plus.json": json.dumps(plus)}
    return write_code(folder, {**TASK_FILES, **files, "travelling_task.py": TASK})


def a_spec(kafka: Kafka, topic: str, tmp_path: Path, code: Path, **changes: object) -> JobSpec:
    return audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=tmp_path / "checkpoints",
        num_ids=NUM_IDS,
        ends={0: NUM_IDS // ROWS},
        name=f"travel-{uuid4().hex[:8]}",
        task="travelling_task:Travelling",
        code=str(code),
        workers={"min": 1, "max": 1, "cpus": 0.5},
        **changes,  # type: ignore[arg-type]
    )


def weights(spec: JobSpec, job_id: str) -> set[int]:
    return set(Counter(times_trained(open_store(spec.checkpoint.place_of(job_id)))))


def test_two_versions_of_one_module_train_side_by_side_and_their_folders_are_gone(
    kafka: Kafka, plane: ControlPlane, tmp_path: Path
) -> None:
    topic = kafka.new_topic()
    first = a_spec(kafka, topic, tmp_path, code_of(tmp_path / "one", factor=1, plus=0))
    second = a_spec(kafka, topic, tmp_path, code_of(tmp_path / "two", factor=2, plus=1))
    jobs = [plane.submit(spec) for spec in (first, second)]
    with closing(Client.from_home(plane.home)) as client:
        client.cancel(plane.submit(first))  # its code is there already
    kept = len(list((plane.home / "code").glob("*.tar")))
    for folder in ("one", "two"):
        shutil.move(tmp_path / folder, tmp_path / "gone" / folder)
    with closing(Client.from_home(plane.home)) as client:
        kafka.produce(topic, 0, id_messages(NUM_IDS, rows=ROWS))
        ended = [client.wait(job, until={State.BLOCKED}, timeout_s=300) for job in jobs]
    assert [(job.state, job.message) for job in ended] == [(State.SUCCEEDED, "")] * 2
    assert [weights(spec, job) for spec, job in zip((first, second), jobs, strict=True)] == [{1}, {3}]
    assert kept == 2
    manifest = open_store(second.checkpoint.place_of(jobs[1])).find(None)
    assert manifest.code_sha256 == digest_code(tmp_path / "gone" / "two")
    with closing(open_source(second)) as source:
        verdict = replay(open_store(second.checkpoint.place_of(jobs[1])), source=source, code=str(tmp_path / "gone" / "two"))
    assert (verdict.is_equal, verdict.is_same_code) == (True, True)


def test_job_resumes_on_the_code_it_has_and_on_other_code_only_if_that_is_allowed(
    kafka: Kafka, plane: ControlPlane, tmp_path: Path
) -> None:
    topic = kafka.new_topic()
    messages = list(id_messages(NUM_IDS, rows=ROWS))
    code = code_of(tmp_path / "code", factor=1, plus=0)
    spec = a_spec(kafka, topic, tmp_path, code)
    job = plane.submit(spec)

    with closing(Client.from_home(plane.home)) as client:

        def trained(rows: int) -> None:
            for update in client.watch(job):
                assert not update.job.state.is_terminal, update.job.message
                if update.job.status.rows_trained >= rows and update.job.state is State.RUNNING:
                    return

        def suspend() -> None:
            client.suspend(job)
            assert client.wait(job, until={State.SUSPENDED}, timeout_s=300).state is State.SUSPENDED

        kafka.produce(topic, 0, messages[:10])
        trained(10 * ROWS - 63)  # what does not fill a step may wait
        suspend()
        code_of(code, factor=2, plus=0)
        with pytest.raises(DriftError, match="was changed since it was sent"):
            client.resume(job)
        client.resume(job, keep_code=True)
        kafka.produce(topic, 0, messages[10:20])
        trained(20 * ROWS - 63)
        suspend()
        client.resume(job, code=code)  # which nobody allowed
        blocked = client.wait(job, until={State.BLOCKED}, timeout_s=300)
        assert (blocked.state, blocked.reason) == (State.BLOCKED, "DRIFT")
        assert "code changed from" in blocked.message
        client.resume(job, accept_code_change=True)
        shutil.rmtree(code)
        kafka.produce(topic, 0, messages[20:])
        assert client.wait(job, until={State.BLOCKED}, timeout_s=300).state is State.SUCCEEDED
    times = times_trained(open_store(spec.checkpoint.place_of(job)))
    assert (set(times[: 10 * ROWS]), set(times[-20 * ROWS :])) == ({1}, {2})
