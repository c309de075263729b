"""A control plane over the launcher's twin: in this process, or in one of its own that can be killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dtrain.control.server import Settings, control_plane
from dtrain.job.memory import MemoryLauncher
from dtrain.job.protocols import Launcher
from dtrain.rpc.connection import Connection
from dtrain.spec.job import JobSpec


def a_spec(name: str = "flights", **workers: float) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": name,
            "task": "tasks:Clicks",
            "source": {"topic": "flights", "bootstrap": "localhost:9092"},
            "checkpoint": {"to": "file:///tmp/nowhere"},
            "workers": {"min": 1, "max": 1, "cpus": 1, **workers},
        }
    )


@contextmanager
def a_control_plane(home: Path, launcher: Launcher, *, address: str = "127.0.0.1:0", **others: Any) -> Iterator[Connection]:
    """A control plane on free ports, in a thread with its own event loop; `others` are of its settings."""
    ready: Future[Connection] = Future()
    end: Future[None] = Future()

    async def live() -> None:
        settings = Settings(home=home, logs_dir=home / "logs", address=address, **others)
        async with control_plane(settings, launcher) as connection:
            ready.set_result(connection)
            await asyncio.wrap_future(end)

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(asyncio.run, live())
        running.add_done_callback(lambda done: ready.done() or ready.set_exception(done.exception()))
        try:
            yield ready.result(90)
        finally:
            end.set_result(None)
        running.result(90)


def start_process(home: Path, *, address: str = "127.0.0.1:0", num_steps: int | None = None) -> subprocess.Popen[bytes]:
    """A control plane in a process of its own; returns when it answers."""
    command = [sys.executable, "-m", "tests.support.control_plane", str(home), address, json.dumps(num_steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def eventually(is_true: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Returns as soon as `is_true`; fails when it is not in time."""
    deadline_s = time.monotonic() + within_s
    while not is_true():
        assert time.monotonic() < deadline_s, "did not happen in time"
        time.sleep(0.02)


def main() -> None:
    from dtrain.control.server import serve

    home, address, num_steps = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    settings = Settings(home=home, logs_dir=home / "logs", address=address)
    launcher = MemoryLauncher(num_steps=num_steps)
    asyncio.run(serve(settings, launcher, on_ready=lambda _: print("ready", flush=True)))


if __name__ == "__main__":
    main()
