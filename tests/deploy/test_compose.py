"""deploy/compose runs: its services as plain processes until a job has trained and Prometheus has seen it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from deploy.kafka.broker import Broker
from tests.support.compose import Compose, programs_missing
from tests.support.kafka import Kafka

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(programs_missing("java")), reason="Kafka needs Java")]

JOB = """
name: lines
task: smoke:LineTask
code: {code}
source: {{topic: lines, bootstrap: "{bootstrap}", format: json, start: earliest}}
batch: {{rows: 20}}
workers: {{min: 1, max: 2}}
checkpoint: {{to: {to}, every: 2s}}
"""


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    folder = Path(tempfile.mkdtemp(prefix="dtc-"))  # pytest's own are too long for Ray's sockets
    try:
        with Compose(folder) as compose:
            for service in ("kafka", "ray-head", "ray-worker", "control-plane"):
                compose.start(service)
            yield compose
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_smoke_job_of_the_chart_succeeds(compose: Compose) -> None:
    """The words of `helm test`."""
    done = compose.dtrain(
        "control-plane", "submit", "/etc/dtrain/smoke/job.yaml", "--watch", "--set", "checkpoint.to=/var/lib/dtrain/checkpoints"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCEEDED" in done.stdout


def test_job_on_the_topic_is_trained_and_scraped(compose: Compose) -> None:
    with Broker(compose.place("kafka", 9092)) as broker:
        kafka = Kafka(broker)
        kafka.new_topic(partitions=2, name="lines")
        rows = compose.path("control-plane", "/etc/dtrain/smoke/rows.jsonl").read_bytes().splitlines()
        for partition in (0, 1):
            kafka.produce("lines", partition, rows[partition::2])
        kafka.close()
    submitted = compose.dtrain("control-plane", "submit", _job(compose), "-o", "name")
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    compose.eventually(lambda: _status(compose, job)["rows_trained"] == len(rows), "all rows are trained", of="control-plane")
    if not programs_missing("prometheus"):
        compose.start("prometheus")
        question = f'dtrain_job_rows_trained_total{{job_id="{job}"}} == {len(rows)}'
        compose.eventually(
            lambda: bool(_asked(compose, f"query?query={quote(question)}")["result"]), "the job is scraped", of="prometheus"
        )
        groups = _asked(compose, "rules")["groups"]
        assert {group["name"] for group in groups} == {"dtrain-control-plane", "dtrain-jobs"}
        assert all(rule["health"] in ("ok", "unknown") for group in groups for rule in group["rules"])
    assert compose.dtrain("control-plane", "cancel", job).returncode == 0


def test_nothing_without_the_token(compose: Compose) -> None:
    from dtrain.client.client import Client
    from dtrain.errors import AuthError

    with Client(compose.place("control-plane", 7400), token="another") as client, pytest.raises(AuthError):
        client.server_info()


def _job(compose: Compose) -> str:
    """A job file on the volume that the services share, as they know it."""
    state = compose.path("control-plane", "/var/lib/dtrain")
    code = compose.path("control-plane", "/etc/dtrain/smoke")
    text = JOB.format(code=code, bootstrap=compose.place("kafka", 9092), to=state / "checkpoints")
    (state / "lines.yaml").write_text(text)
    return "/var/lib/dtrain/lines.yaml"


def _status(compose: Compose, job: str) -> dict[str, Any]:
    done = compose.dtrain("control-plane", "get", job, "-o", "json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["state"] not in ("FAILED", "BLOCKED"), value
    status: dict[str, Any] = value["status"]
    return status


def _asked(compose: Compose, path: str) -> dict[str, Any]:
    try:
        with urlopen(f"http://{compose.place('prometheus', 9090)}/api/v1/{path}", timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
            return data
    except OSError:
        return {"result": [], "groups": []}
