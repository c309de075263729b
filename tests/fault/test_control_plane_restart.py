"""The control plane as a process of its own, killed and stopped under its clients."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

import dtrain.client.client as client_module
from dtrain.cli.ports import free_ports
from dtrain.client.client import Client
from dtrain.errors import UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.view import Job, Update
from tests.support.control_plane import a_spec, eventually, start_process


def a_free_address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@contextmanager
def a_process(home: Path, address: str) -> Iterator[int]:
    """A control plane by its process id; killed at the end if it still lives."""
    process = start_process(home, address=address)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_watch_goes_on_over_a_kill_without_losing_or_doubling_an_event(tmp_path: Path) -> None:
    address, updates = a_free_address(), list[Update]()
    with a_process(tmp_path, address):
        client = Client.from_home(tmp_path)
        job = client.submit(a_spec()).job_id
        watcher = threading.Thread(target=lambda: updates.extend(client.watch(job)))
        watcher.start()
        before = client.wait(job, until={State.RUNNING}, timeout_s=60)
    with a_process(tmp_path, address), client:
        after = client.wait(job, until={State.RUNNING}, timeout_s=60)
        while after.incarnation == before.incarnation or after.state is not State.RUNNING:
            after = client.wait(job, until={State.RUNNING}, timeout_s=60)
        client.cancel(job)
        watcher.join(60)
    numbers = [event.number for update in updates for event in update.events]
    assert all(second == first + 1 for first, second in pairwise(numbers))
    assert updates[-1].job.state is State.CANCELLED
    assert updates[-1].job.incarnation == 2


def is_cancelled(client: Client, job: str) -> bool:
    """Whether the server, which gRPC may look for only once a second by now, was asked for that."""
    try:
        client.cancel(job)
    except UnavailableError:
        return False
    return True


def test_watch_of_a_job_that_was_quiet_for_long_goes_on_over_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience begins with the first failure, not with the last message."""
    address, quiet_s = a_free_address(), 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + quiet_s, sleep=time.sleep)
    monkeypatch.setattr(client_module, "time", clock)
    with a_process(tmp_path, address):
        client = Client.from_home(tmp_path)
        job = client.submit(a_spec(cpus=99)).job_id  # waits for room, and says so once
        updates = client.watch(job)
        while not next(updates).job.message:
            pass
        quiet_s = 3_600.0
    with client:
        rest: list[Update] = []
        watcher = threading.Thread(target=lambda: rest.extend(updates))
        watcher.start()
        with a_process(tmp_path, address):
            eventually(lambda: is_cancelled(client, job), within_s=60)
            watcher.join(60)
    assert rest
    assert rest[-1].job.state is State.CANCELLED


def test_jobs_submitted_while_the_control_plane_is_killed_exist_once_each(tmp_path: Path) -> None:
    address, accepted = a_free_address(), dict[int, Job]()
    spec = a_spec(cpus=99)

    def submit_all() -> None:
        for number in range(60):
            while number not in accepted:
                try:
                    accepted[number] = client.submit(spec, request_id=f"request-{number}")
                except UnavailableError:
                    continue

    with a_process(tmp_path, address):
        client = Client.from_home(tmp_path)
        submitter = threading.Thread(target=submit_all)
        submitter.start()
        while len(accepted) < 20:
            submitter.join(0.01)
    with a_process(tmp_path, address):
        while len(accepted) < 40:
            submitter.join(0.01)
    with a_process(tmp_path, address), client:
        submitter.join(90)
        assert [job.job_id for job in client.list()] == [accepted[number].job_id for number in range(60)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_by_signal_ends_streams_and_the_process_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    address, ends = a_free_address(), list[BaseException]()
    process = start_process(tmp_path, address=address)
    try:
        with Client.from_home(tmp_path) as client:
            job = client.submit(a_spec()).job_id
            client.wait(job, until={State.RUNNING}, timeout_s=60)
            logs = client.logs(job, follow=True)
            follower = threading.Thread(target=lambda: ends.append(_end_of(logs)))
            follower.start()
            process.send_signal(number)
            assert process.wait(60) == 0
            follower.join(60)
        assert isinstance(ends[0], UnavailableError)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _end_of(lines: Iterator[object]) -> BaseException:
    try:
        return AssertionError(f"ended without an error: {list(lines)}")
    except UnavailableError as error:
        return error
