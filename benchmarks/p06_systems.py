"""The systems of P6 and P7: each is started with so many ranks, and leaves traces in a folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from benchmarks.p06_loop import HIDDEN, ROWS
from benchmarks.peers import NVRX, TORCHFT, Peer
from benchmarks.traces import is_alive, read_traces
from benchmarks.world import CODE, Job, a_cluster
from dtrain.spec.job import JobSpec

CPUS_A_RANK = 0.2


class System(Protocol):
    """Something that trains on several ranks.

    Attributes:
        name: with its version or settings.
    """

    name: str

    def open(self, folder: Path, *, num_ranks: int) -> None:
        """It is being started; traces go to `folder`, which is empty and its own."""

    def ranks(self) -> Mapping[int, int]:
        """Process ids by rank, of a whole system."""

    def mend(self, victim: int) -> bool:
        """What it does not replace by itself has been started again; False if it can only be started afresh."""

    def close(self) -> None:
        """No process of it is left."""


class Dtrain:
    """A real job on Ray over a real topic.

    Args:
        job: its job file, without the number of workers and the place of checkpoints.
        name: for the results.
    """

    def __init__(self, job: Mapping[str, Any], *, name: str = "dtrain") -> None:
        self.name = name
        self._job_file = job
        self._stack = ExitStack()

    def open(self, folder: Path, *, num_ranks: int) -> None:
        """The job is launched on a cluster of its own."""
        workers = {"cpus": CPUS_A_RANK, **self._job_file.get("workers", {}), "min": num_ranks, "max": num_ranks}
        checkpoint = {**self._job_file.get("checkpoint", {}), "to": str(folder / "checkpoints")}
        spec = JobSpec.model_validate({**self._job_file, "code": str(CODE), "workers": workers, "checkpoint": checkpoint})
        self._stack = ExitStack()
        self._stack.enter_context(a_cluster(folder / "ray", num_cpus=4, traces=folder))
        self.job = Job(spec, logs=folder / "logs")
        self._stack.callback(self.job.close)

    def ranks(self) -> Mapping[int, int]:
        """Trainers by rank."""
        self.job.observe()
        return self.job.pids("trainer")

    def mend(self, victim: int) -> bool:
        """It replaces by itself what died; one that was stopped is killed by it."""
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return True

    def close(self) -> None:
        """Job and cluster are gone."""
        self._stack.close()


@dataclass
class Scripts:
    """A peer made of processes that are started from here.

    Args:
        name: with its version or settings.
        python: that runs it.
        script: of this folder.
        options: for it.
    """

    name: str
    script: str
    python: Path = Path(sys.executable)
    options: Sequence[str] = ()
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)

    def open(self, folder: Path, *, num_ranks: int) -> None:
        """All processes are started."""
        self._folder, self._num_ranks = folder, num_ranks
        self._start()

    def _start(self) -> None:
        raise NotImplementedError

    def ranks(self) -> Mapping[int, int]:
        """As they say themselves."""
        return {rank: int((self._folder / f"rank-{rank}").read_text(encoding="ascii")) for rank in range(self._num_ranks)}

    def mend(self, victim: int) -> bool:
        """It replaces by itself what died; one that was stopped is killed here."""
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
        return True

    def wait(self, *, timeout_s: float) -> None:
        """What was started first has ended by itself."""
        if self._processes[0].wait(timeout_s):
            said = (self._folder / "output.log").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{self.name} failed:\n{said[-3000:]}")

    def close(self) -> None:
        """No process is left that was started here or leaves traces here."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
        self._processes.clear()
        for pid in filter(is_alive, read_traces(self._folder)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _run(self, *command: str, **environment: str) -> None:
        with (self._folder / "output.log").open("ab") as output:
            quiet = {
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(CODE.parent),
                "TORCH_CPP_LOG_LEVEL": "ERROR",
                "RUST_LOG": "error",
                "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            }
            process = subprocess.Popen(
                command, env=os.environ | quiet | environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._processes.append(process)

    def _script(self, *options: str) -> list[str]:
        return [str(CODE / self.script), f"--folder={self._folder}", *self.options, *options]


class Torchrun(Scripts):
    """One agent that restarts all of its workers when one dies."""

    def _start(self) -> None:
        launch = ("-m", "torch.distributed.run", "--standalone", "--max-restarts=1000", f"--nproc-per-node={self._num_ranks}")
        self._run(str(self.python), *launch, *self._script())


class RayTrain(Scripts):
    """One driver with a Ray of its own."""

    def _start(self) -> None:
        self._run(str(self.python), *self._script(f"--world-size={self._num_ranks}"))


class TorchFt(Scripts):
    """A lighthouse, and each rank a replica group of one; a dead one is started again here, as a scheduler would."""

    lighthouse: Sequence[str] = ()

    def _start(self) -> None:
        port = _free_port()
        self._address = {"TORCHFT_LIGHTHOUSE": f"http://127.0.0.1:{port}"}
        program = self.python.with_name("torchft_lighthouse")
        self._run(str(program), "--min_replicas=1", f"--bind=127.0.0.1:{port}", *self.lighthouse)
        for rank in range(self._num_ranks):
            self._start_rank(rank)

    def _start_rank(self, rank: int) -> None:
        self._run(str(self.python), *self._script(f"--rank={rank}", f"--world-size={self._num_ranks}"), **self._address)

    def mend(self, victim: int) -> bool:
        """The victim's place is filled."""
        rank = next(rank for rank, pid in self.ranks().items() if pid == victim)
        super().mend(victim)
        self._start_rank(rank)
        return True


class InProcess(Scripts):
    """Ranks that go on with fewer; the store is a process of its own, so that rank 0 may die too."""

    def _start(self) -> None:
        port = _free_port()
        store = f"import time, torch; s = torch.distributed.TCPStore('127.0.0.1', {port}, None, True); time.sleep(1e6)"
        self._run(str(self.python), "-c", store)
        for rank in range(self._num_ranks):
            world = {
                "RANK": str(rank),
                "WORLD_SIZE": str(self._num_ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            self._run(str(self.python), *self._script(f"--rank={rank}"), **world)

    def mend(self, victim: int) -> bool:
        """Nobody can join: it has to be started afresh."""
        super().mend(victim)
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def dtrain(source: Mapping[str, object], *, name: str = "dtrain", workers: Mapping[str, object] | None = None) -> Dtrain:
    """The same model and rows as its peers', from a stream."""
    task = {"name": "p6", "task": "p01_workload:PerceptronTask", "params": {"hidden": [HIDDEN, HIDDEN]}}
    return Dtrain({**task, "source": source, "batch": {"rows": ROWS, "num_slices": 8}, "workers": workers or {}}, name=name)


def torchrun(*, timeout_s: float = 0) -> Torchrun:
    """The peer that everybody has."""
    return Torchrun(f"torchrun {version('torch')}", "p06_ddp.py", options=_patience(timeout_s))


def ray_train(*, timeout_s: float = 0) -> RayTrain:
    """With FailureConfig(max_failures=-1)."""
    return RayTrain(f"Ray Train {version('ray')}", "p06_ray_train.py", options=_patience(timeout_s))


def torchft(*, is_aggressive: bool, timeout_s: float = 0) -> TorchFt:
    """With its defaults, or with heartbeats and timeouts as short as they may be."""
    options = [*_patience(timeout_s), *(["--is-aggressive"] if is_aggressive else [])]
    name = f"torchft nightly {'aggressive' if is_aggressive else 'default'}"
    system = TorchFt(name, "p06_torchft.py", TORCHFT.interpreter, options)
    if is_aggressive:
        system.lighthouse = ("--heartbeat_timeout_ms=250", "--quorum_tick_ms=10", "--join_timeout_ms=1000")
    return system


def nvrx(*, is_aggressive: bool, timeout_s: float = 0) -> InProcess:
    """With its defaults, or with short intervals."""
    options = [*_patience(timeout_s), *(["--is-aggressive"] if is_aggressive else [])]
    name = f"nvidia-resiliency-ext 0.7.0 {'aggressive' if is_aggressive else 'default'}"
    return InProcess(name, "p06_nvrx.py", NVRX.interpreter, options)


ENVIRONMENTS: Mapping[type[Scripts], Peer] = {TorchFt: TORCHFT, InProcess: NVRX}
"""What has to be installed before a system can run."""


def _patience(timeout_s: float) -> list[str]:
    return [f"--timeout-s={timeout_s:g}"] if timeout_s else []
