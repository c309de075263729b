"""The SDK against a real server, a real store, and the launcher's twin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain.client.client import Client
from dtrain.job.lifecycle import State
from dtrain.job.memory import MemoryLauncher
from tests.support.control_plane import a_control_plane, a_spec, eventually


@pytest.fixture
def launcher() -> MemoryLauncher:
    return MemoryLauncher()


@pytest.fixture
def client(tmp_path: Path, launcher: MemoryLauncher) -> Iterator[Client]:
    with a_control_plane(tmp_path, launcher), Client.from_home(tmp_path) as made:
        yield made


def test_job_submitted_runs_suspends_resumes_and_is_cancelled(client: Client, launcher: MemoryLauncher) -> None:
    job = client.submit(a_spec()).job_id
    running = client.wait(job, until={State.RUNNING}, timeout_s=10)
    assert (running.incarnation, running.name) == (1, "flights")
    client.suspend(job)
    stopped = client.wait(job, until={State.SUSPENDED}, timeout_s=10)
    assert launcher.coordinators == {}
    client.resume(job)
    again = client.wait(job, until={State.RUNNING}, timeout_s=10)
    assert again.incarnation == 2
    assert again.status.step >= stopped.status.step > 0
    client.cancel(job)
    assert client.wait(job, until={State.CANCELLED}, timeout_s=10).state is State.CANCELLED
    assert launcher.coordinators == {}
