"""What jobs require, through a real control plane, Ray and Kafka: two versions of one package train side by side, and a job changes its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from dtrain.checkpoint.locks import read_lock
from dtrain.checkpoint.places import open_store
from dtrain.client.client import Client
from dtrain.errors import DriftError
from dtrain.job.lifecycle import State
from dtrain.packages.lock import Lock
from dtrain.spec.job import JobSpec
from tests.support.audit import TASK_FILES, audit_spec, id_messages, times_trained
from tests.support.code import write_code
from tests.support.controlled import ControlPlane
from tests.support.kafka import Kafka
from tests.support.packages import offer

NUM_IDS, ROWS = 400, 10
PROBE = "dtrain-requiring"
TASK = """
from audit_task import AuditTask
from dtrain_requiring import VERSION

FACTOR = int(VERSION[0])


class Requiring(AuditTask):
    def loss(self, outputs, batch):
        return FACTOR * super().loss(outputs, batch)
"""
MAPS = """
from dtrain_requiring import VERSION


def same(batch):
    assert VERSION == "2.0", VERSION
    return batch
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plane(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    started = ControlPlane(tmp_path_factory.mktemp("plane"))
    yield started
    started.kill()


def a_spec(kafka: Kafka, topic: str, folder: Path, *, requirements: object, needs: str = "", **changes: object) -> JobSpec:
    code = write_code(folder / "code", {**TASK_FILES, "requiring_task.py": TASK, "requiring_maps.py": MAPS, "needs.txt": needs})
    return audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=folder / "checkpoints",
        num_ids=NUM_IDS,
        ends={0: NUM_IDS // ROWS},
        name=f"requires-{uuid4().hex[:8]}",
        task="requiring_task:Requiring",
        code=str(code),
        workers={"min": 1, "max": 1, "cpus": 0.5},
        requirements=requirements,  # type: ignore[arg-type]
        **changes,  # type: ignore[arg-type]
    )


def test_two_versions_of_one_package_train_side_by_side_and_a_job_goes_on_with_another_if_that_is_allowed(
    kafka: Kafka, plane: ControlPlane, tmp_path: Path
) -> None:
    offer(PROBE, ["1.0", "2.0"])
    topic, messages = kafka.new_topic(), list(id_messages(NUM_IDS, rows=ROWS))
    other = a_spec(
        kafka, topic, tmp_path / "other", requirements=[f"{PROBE}>=2"], transform={"map": "requiring_maps:same"}
    )  # its reader imports the package too
    spec = a_spec(kafka, topic, tmp_path / "changing", requirements="needs.txt", needs="dtrain-nowhere\n")
    needs = Path(spec.code) / "needs.txt"
    job, other_job = plane.submit(spec), plane.submit(other)
    with closing(Client.from_home(plane.home)) as client:
        blocked = client.wait(job, until={State.BLOCKED}, timeout_s=300)
        assert (blocked.reason, "dtrain-nowhere was not found" in blocked.message) == ("REQUIREMENTS", True)

        needs.write_text(f"{PROBE}<2\n")
        client.resume(job, accept_code_change=True)
        kafka.produce(topic, 0, messages[: len(messages) // 2])
        for update in client.watch(job):
            assert update.job.state not in {State.BLOCKED, State.FAILED}, update.job.message
            if update.job.status.rows_trained >= NUM_IDS // 2 - 63:  # what does not fill a step may wait
                break
        client.suspend(job)
        assert client.wait(job, until={State.SUSPENDED}, timeout_s=300).state is State.SUSPENDED

        needs.write_text(f"{PROBE}\n")
        with pytest.raises(DriftError, match="was changed since it was sent"):
            client.resume(job)
        client.resume(job, accept_code_change=True)
        kafka.produce(topic, 0, messages[len(messages) // 2 :])
        ended = [client.wait(one, until={State.BLOCKED}, timeout_s=300) for one in (job, other_job)]
        assert [(one.state, one.message) for one in ended] == [(State.SUCCEEDED, "")] * 2
        told = [event.happening.message for update in client.watch(job) for event in update.events]

    stores = [open_store(one.checkpoint.place_of(job_id)) for one, job_id in ((spec, job), (other, other_job))]
    times = [Counter(times_trained(store)) for store in stores]
    assert times[1] == {2: NUM_IDS}
    assert times[0].keys() == {1, 2}
    assert sum(times[0].values()) == NUM_IDS
    locks = [Lock.from_json(read_lock(store, store.find(None).lock_sha256)) for store in stores]
    assert [lock.versions for lock in locks] == [{PROBE: "2.0"}] * 2
    assert any("packages changed behind checkpoint" in words and f"{PROBE} 1.0 → 2.0" in words for words in told)
    assert any(words.startswith("settled for the life of the job") and words.endswith(f"{PROBE} 1.0") for words in told)
