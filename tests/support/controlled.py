"""Jobs as a user's: submitted to a real control plane, in a process of its own that can be killed, which launches them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import ray

from dtrain.cli.ports import free_ports
from dtrain.client.client import Client
from dtrain.errors import DtrainError, UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.status import Observation, Outcome
from dtrain.spec.job import JobSpec
from tests.support.cluster import ClusterJob

_OUTCOMES = {
    State.SUCCEEDED: Outcome.SUCCEEDED,
    State.FAILED: Outcome.FAILED,
    State.BLOCKED: Outcome.BLOCKED,
    State.CANCELLED: Outcome.STOPPED,
}


class ControlPlane:
    """The process that `dtrain up` starts, over the cluster that this process is connected to.

    Args:
        home: its folder; a control plane that is started again finds there what the one before knew.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self._address = f"127.0.0.1:{free_ports(1)[0]}"
        self.start()

    @property
    def logs(self) -> Path:
        """Where its jobs' logs are."""
        return self.home / "logs" / "jobs"

    def start(self) -> None:
        """A process, which is not waited for."""
        cluster: str = ray.get_runtime_context().gcs_address
        words = [str(self.home), cluster, self._address, "127.0.0.1:0"]
        self._process = subprocess.Popen([sys.executable, "-m", "dtrain.cli.control_plane", *words], env=dict(os.environ))

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def submit(self, spec: JobSpec) -> str:
        """The new job's id, as soon as the control plane answers."""
        deadline_s = time.monotonic() + 60
        while True:
            try:
                with closing(Client.from_home(self.home)) as client:
                    return client.submit(spec).job_id
            except (DtrainError, OSError):
                if time.monotonic() > deadline_s or self._process.poll() is not None:
                    raise
                time.sleep(0.1)

    def state(self, job_id: str) -> State | None:
        """What it says of a job; None where it says nothing."""
        try:
            with closing(Client.from_home(self.home, timeout_s=2)) as client:
                return client.get(job_id).state
        except UnavailableError:
            return None


class ControlledJob(ClusterJob):
    """A job that a control plane runs. What it does is read off its coordinator, as long as there is one."""

    def __init__(self, spec: JobSpec, *, plane: ControlPlane) -> None:
        self.plane = plane
        super().__init__(spec, job_id=plane.submit(spec), logs=plane.logs)

    def launch(self) -> None:
        """The control plane does."""

    def launch_next(self, *, skip_step: bool = False) -> None:
        """The control plane does; which it has launched last is looked up."""
        assert not skip_step
        prefix = f"{self.record.job_id}/coordinator/"
        found = [int(name.removeprefix(prefix)) for name in ray.util.list_named_actors() if name.startswith(prefix)]
        if found and max(found) > self.record.incarnation:
            self.record, self._cursor = replace(self.record, incarnation=max(found)), 0

    def observe(self) -> Observation:
        seen = super().observe()
        if seen.is_alive:
            return seen
        outcome = _OUTCOMES.get(self.plane.state(self.record.job_id) or State.RECOVERING, Outcome.NONE)
        return replace(seen, outcome=outcome)
