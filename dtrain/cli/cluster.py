"""`up` and `down`: Ray's head and the control plane as processes of their own, in one home."""

from __future__ import annotations

import fcntl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dtrain.cli.ports import answers
from dtrain.cli.processes import Recorded, Register, last_line, start
from dtrain.cli.ray_head import forget_ray, ray_environment, start_ray
from dtrain.client.client import Client
from dtrain.control.auth import token_in
from dtrain.errors import DtrainError, StateError, StorageError, UnavailableError
from dtrain.rpc.connection import FILE, Connection, host_and_port

_PATIENCE_S = 90.0
_GRACE_S = 10.0
ANYWHERE = "127.0.0.1:0"
_NAMES = {"ray": "Ray", "control_plane": "control plane"}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What `up` was asked for; port 0 is the one that it had before, or a free one."""

    address: str = ANYWHERE
    metrics_address: str = ANYWHERE
    ray_address: str = ""
    """Of a cluster that somebody else runs; empty for one of our own."""
    cpus: int | None = None
    """That our cluster may share out; None for all."""
    gpus: int | None = None


class Cluster:
    """What runs in a home; `say` is told each thing that was done, in a sentence."""

    def __init__(self, home: Path, *, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._home = home
        self._environment = environment
        self._say = say
        self._register = Register(home)

    def up(self, wishes: Wishes) -> Connection:
        """Both answer. What ran already runs on; what was dead is started again; a failed start leaves nothing of its own.

        Raises:
            InputError: an address is none.
            StateError: the control plane runs elsewhere than wished for.
            UnavailableError: one of them did not start; says why.
            StorageError: the home cannot be written.
        """
        for wished in (wishes.address, wishes.metrics_address):
            host_and_port(wished)
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
        token_in(token_file := self._home / "ray-token")  # it is there from now on
        environment = ray_environment(self._environment, token_file=token_file)
        head = self._register["ray"]
        if head is not None and head.is_alive and answers(head.facts["address"]):
            self._say(f"Ray runs at {head.facts['address']} (pid {head.pid})")
            return environment, head.facts["address"]
        self._end("control_plane")  # it belonged to the head that is gone
        self._end("ray")
        head = self._start(
            "ray",
            lambda: start_ray(self._home, environment=environment, cpus=wishes.cpus, gpus=wishes.gpus),
            is_there=lambda head: answers(head.facts["address"]),
        )
        self._say(f"Ray started at {head.facts['address']} (pid {head.pid})")
        return environment, head.facts["address"]

    def _control_plane(self, wishes: Wishes, address: str, environment: Mapping[str, str], ray_address: str) -> Connection:
        old = self._register["control_plane"]
        if old is not None and old.is_alive and old.facts.get("ray") == ray_address and (found := self._healthy(old.pid)):
            _check_same(wishes.address, found.address)
            _check_same(wishes.metrics_address, found.metrics_address)
            self._say(f"control plane runs at {found.address} (pid {old.pid})")
            return found
        self._end("control_plane")
        places = [str(self._home), ray_address, address, wishes.metrics_address]
        command = [sys.executable, "-m", "dtrain.cli.control_plane", *places]
        process = self._start(
            "control_plane",
            lambda: start(command, environment=environment, log=self._log("control_plane"), facts={"ray": ray_address}),
            is_there=lambda process: self._healthy(process.pid) is not None,
        )
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
            if connection.pid != pid:
                return None
            with Client(connection.address, token=connection.token(), timeout_s=5) as client:
                client.server_info()
        except DtrainError:
            return None
        return connection

    def _log(self, role: str) -> Path:
        return self._home / "logs" / f"{role.replace('_', '-')}.log"

    def _start(self, role: str, begin: Callable[[], Recorded], *, is_there: Callable[[Recorded], bool]) -> Recorded:
        """What `begin` starts is recorded and there; ended again if it does not come, or the wait is interrupted."""
        log = self._log(role)
        since = log.stat().st_size if log.exists() else 0
        process = begin()
        try:
            self._register[role] = process
            _await(process, lambda: is_there(process), name=_NAMES[role], log=log, since=since)
        except BaseException:
            process.end(grace_s=_GRACE_S)
            raise
        return process

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
            self._say(f"{_NAMES[role]} stopped (pid {process.pid})")
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


def _check_same(wished: str, there: str) -> None:
    """What runs listens where it is wished for; port 0 is any, and who wishes for nothing gets what there is."""
    if wished == ANYWHERE:
        return
    host, port = host_and_port(wished)
    if (host, port or host_and_port(there)[1]) != host_and_port(there):
        fix = "leave the address out, or stop it first with: dtrain down"
        raise StateError(f"the control plane that runs listens at {there}, not at {wished}", fix=fix)


def _await(process: Recorded, is_there: Callable[[], bool], *, name: str, log: Path, since: int) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not is_there():
        if not process.is_alive:
            reason, _, fix = last_line(log, since=since).partition("; ")
            raise UnavailableError(f"{name} did not start: {reason}", fix=f"{fix or 'read the log'} (log: {log})")
        if time.monotonic() >= deadline_s:
            raise UnavailableError(f"{name} does not answer after {_PATIENCE_S:.0f} s", fix=f"read the log: {log}")
        time.sleep(0.1)
