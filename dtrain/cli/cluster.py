"""`up` and `down`: Ray's head and the control plane as processes of their own, in one home."""

from __future__ import annotations

import fcntl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dtrain.cli.processes import Recorded, Register, last_words, start
from dtrain.cli.ray_head import answers, forget_ray, ray_environment, ray_token, start_ray
from dtrain.client.client import Client
from dtrain.errors import DtrainError, StorageError, UnavailableError
from dtrain.rpc.connection import FILE, Connection

_RAY_S = 60.0
_CONTROL_PLANE_S = 90.0
_GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `up` was asked for.

    Args:
        address: of the API; port 0 for the one it had before, or a free one.
        metrics_address: of /metrics; likewise a free one.
        ray_address: of a cluster that somebody else runs; empty for one of our own.
        cpus: that our cluster may share out; None for all.
        gpus: likewise.
    """

    address: str = "127.0.0.1:0"
    metrics_address: str = "127.0.0.1:0"
    ray_address: str = ""
    cpus: int | None = None
    gpus: int | None = None


class Cluster:
    """What runs in a home.

    Args:
        home: its folder.
        environment: of the processes that are started.
        say: told each thing that was done, in a sentence.
    """

    def __init__(self, home: Path, *, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._home = home
        self._environment = environment
        self._say = say
        self._register = Register(home)

    def up(self, wishes: Wishes) -> Connection:
        """Both answer. What ran already runs on; what was dead is started again; a failed start leaves nothing of its own.

        Raises:
            UnavailableError: one of them did not start; says why.
            StorageError: the home cannot be written.
        """
        with self._locked():
            address = self._address(wishes.address)
            environment, ray_address = self._ray(wishes)
            return self._control_plane(wishes, address, environment, ray_address)

    def down(self) -> None:
        """Neither runs, nor anything that they started. The home keeps jobs, logs and tokens."""
        if not self._home.exists():
            self._say(f"nothing runs: there is no {self._home}")
            return
        with self._locked():
            ran = [self._end(role) for role in ("control_plane", "ray")]
            (self._home / FILE).unlink(missing_ok=True)
            if not any(ran):
                self._say("nothing runs")

    def _ray(self, wishes: Wishes) -> tuple[Mapping[str, str], str]:
        """The environment of who joins the cluster, and its address; a head runs if we are to have one."""
        if wishes.ray_address:
            if not answers(wishes.ray_address):  # or Ray would wait for it for minutes
                raise UnavailableError(
                    f"nobody answers at {wishes.ray_address}", fix="give the address of a Ray head, host:port"
                )
            self._say(f"Ray: the cluster at {wishes.ray_address}")
            return self._environment, wishes.ray_address
        environment = ray_environment(self._environment, token_file=ray_token(self._home))
        head = self._register["ray"]
        if head is not None and head.is_alive and answers(head.facts["address"]):
            self._say(f"Ray runs at {head.facts['address']} (pid {head.pid})")
            return environment, head.facts["address"]
        self._end("control_plane")  # it belonged to the head that is gone
        self._end("ray")
        log = self._home / "logs" / "ray.log"
        since = log.stat().st_size if log.exists() else 0
        head = start_ray(self._home, environment=environment, cpus=wishes.cpus, gpus=wishes.gpus)
        address = head.facts["address"]
        with self._recorded("ray", head):
            self._await("Ray", head, log, since, timeout_s=_RAY_S, is_there=lambda: answers(address))
        self._say(f"Ray started at {address} (pid {head.pid})")
        return environment, address

    def _control_plane(self, wishes: Wishes, address: str, environment: Mapping[str, str], ray_address: str) -> Connection:
        old = self._register["control_plane"]
        if old is not None and old.is_alive and old.facts.get("ray") == ray_address and (found := self._healthy(old.pid)):
            self._say(f"control plane runs at {found.address} (pid {old.pid})")
            return found
        self._end("control_plane")
        log = self._home / "logs" / "control-plane.log"
        since = log.stat().st_size if log.exists() else 0
        command = [
            sys.executable,
            "-m",
            "dtrain.cli.control_plane",
            str(self._home),
            ray_address,
            address,
            wishes.metrics_address,
        ]
        process = start(command, environment=environment, log=log, facts={"ray": ray_address})
        with self._recorded("control_plane", process):
            is_there = lambda: self._healthy(process.pid) is not None  # noqa: E731
            self._await("the control plane", process, log, since, timeout_s=_CONTROL_PLANE_S, is_there=is_there)
        connection = Connection.load(self._home)
        self._say(f"control plane started at {connection.address} (pid {process.pid})")
        return connection

    def _address(self, wished: str) -> str:
        """The address wished for; where any port will do, the one that clients may still be looking at.

        Raises:
            UnavailableError: somebody else listens there; told before anything is started.
        """
        try:
            before = Connection.load(self._home).address
        except DtrainError:
            before = ""
        if wished.endswith(":0") and before.startswith(wished[:-1]) and not answers(before):
            return before
        if answers(wished) and wished != before:
            raise UnavailableError(
                f"the address {wished} is taken", fix="stop what listens there, or choose another with --address"
            )
        return wished

    def _healthy(self, pid: int) -> Connection | None:
        """Where the control plane with this pid serves; None as long as it does not."""
        try:
            connection = Connection.load(self._home)
        except DtrainError:
            return None
        if connection.pid != pid:
            return None
        try:
            with Client(connection.address, token=connection.token(), timeout_s=5) as client:
                client.server_info()
        except DtrainError:
            return None
        return connection

    def _await(
        self, what: str, process: Recorded, log: Path, since: int, *, timeout_s: float, is_there: Callable[[], bool]
    ) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not is_there():
            if not process.is_alive:
                words = next(last_words(log, since=since), "it said nothing")
                reason, _, fix = words.partition("; ")
                raise UnavailableError(f"{what} did not start: {reason}", fix=f"{fix or 'read the log'} (log: {log})")
            if time.monotonic() >= deadline_s:
                raise UnavailableError(f"{what} does not answer after {timeout_s:.0f} s", fix=f"read the log: {log}")
            time.sleep(0.1)

    @contextmanager
    def _recorded(self, role: str, process: Recorded) -> Iterator[None]:
        """`process` is recorded, and ended again if the block fails or is interrupted."""
        try:
            self._register[role] = process
            yield
        except BaseException:
            process.end(grace_s=_GRACE_S)
            raise

    def _end(self, role: str) -> bool:
        """Nothing of `role` runs; whether something did."""
        process = self._register[role]
        if process is None:
            return False
        ran = bool(process.session())
        process.end(grace_s=_GRACE_S)
        if role == "ray":
            forget_ray(process)
        self._register[role] = None
        if ran:
            self._say(f"{'Ray' if role == 'ray' else 'control plane'} stopped (pid {process.pid})")
        return ran

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time, and a home to work in."""
        try:
            (self._home / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
            self._home.chmod(0o700)
            lock = (self._home / "up.lock").open("w")
        except OSError as error:
            fix = "make it writable, or set DTRAIN_HOME to another folder"
            raise StorageError(f"the home {self._home} cannot be written: {error.strerror}", fix=fix) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
