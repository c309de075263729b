"""A node of a Ray cluster as one process in the foreground: the words of `ray start`."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from dtrain.cli.ports import answers, free_ports
from dtrain.errors import InputError, UnavailableError
from dtrain.runtime.nodes import CONTROL_PLANE, ROLE_LABEL

AUTO = "auto"
_REFUSED = ("127.0.0.1", "localhost", "::1")
_PAUSE_S = 0.5
_START_S = 60.0
_SMALLEST_STORE_BYTES = 80_000_000


@dataclass(frozen=True, slots=True)
class Node:
    """What a node is to be.

    Args:
        node_ip: the address that the others reach it at; `auto` for that of this host's name, as in a container.
        node_port: of its raylet, for probes; 0 for a free one.
        folder: of its logs and sockets; empty for Ray's own.
        cpus: that jobs may use; None for all.
        gpus: that jobs may use; None for all.
        store_bytes: size of its object store; None for Ray's share of the memory.
        role: a label that says what it is not to run; empty for none.
    """

    node_ip: str
    node_port: int = 0
    folder: str = ""
    cpus: int | None = None
    gpus: int | None = None
    store_bytes: int | None = None
    role: str = ""

    def settled(self) -> Self:
        """The same with an address in place of `auto`.

        Raises:
            InputError: nobody could join at that address.
            UnavailableError: this host's name has none.
        """
        if self.node_ip in _REFUSED:
            reason = f"--node-ip {self.node_ip}: Ray takes that for an address which others reach"
            raise InputError(reason, fix="write such an address, or auto; on one machine another of loopback's, as 127.0.0.2")
        return replace(self, node_ip=own_address()) if self.node_ip == AUTO else self


def own_address() -> str:
    """The address of this host's name: in a container, its own.

    Raises:
        UnavailableError: it has none.
    """
    name = socket.gethostname()
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        raise UnavailableError(f"the host's name {name} has no address", fix="name one with --node-ip") from error


def head_command(node: Node, *, port: int) -> list[str]:
    """Runs a head that others join at `port`."""
    options = {
        "--port": port,
        "--ray-client-server-port": free_ports(1)[0],
        "--include-dashboard": "false",
    }  # nobody uses that port, but Ray opens it
    return _start(node, ["--head", "--no-monitor"], options)


def worker_command(node: Node, *, head: str) -> list[str]:
    """Runs a node that joins the head at `head`."""
    return _start(node, [], {"--address": head})


def start_for_driver(node: Node, *, head: str, environment: Mapping[str, str]) -> int:
    """A node without room for anything runs beside this process, which Ray's drivers need; it ends with this process. Returns its pid.

    Raises:
        UnavailableError: it does not start.
    """
    port = node.node_port or free_ports(1)[0]
    place = f"{node.node_ip}:{port}"
    if answers(place):
        raise UnavailableError(f"{place} is taken", fix="leave --node-port out, or name another")
    bare = replace(node, node_port=port, cpus=0, gpus=0, store_bytes=_SMALLEST_STORE_BYTES, role=CONTROL_PLANE)
    tied = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
    process = subprocess.Popen([*tied, *worker_command(bare, head=head)], env=dict(environment), stdin=subprocess.DEVNULL)
    deadline_s = time.monotonic() + _START_S
    while not answers(place):
        if process.poll() is not None or time.monotonic() >= deadline_s:
            process.terminate()
            raise UnavailableError(f"no Ray node started that joins {head}", fix="see above what Ray says")
        time.sleep(_PAUSE_S)
    process.returncode = 0  # who this process becomes waits for it; or Python would warn that it still runs
    return process.pid


def await_head(address: str, *, patience_s: float) -> None:
    """A head accepts connections at `address`; Ray itself would say nothing for minutes.

    Raises:
        UnavailableError: it does not, for `patience_s`.
    """
    deadline_s = time.monotonic() + patience_s
    while not answers(address):
        if time.monotonic() >= deadline_s:
            raise UnavailableError(
                f"no Ray head answers at {address} after {patience_s:.0f} s", fix="start it with `dtrain ray-head`"
            )
        time.sleep(_PAUSE_S)


def _start(node: Node, words: list[str], options: Mapping[str, object]) -> list[str]:
    every = {
        **options,
        "--node-ip-address": node.node_ip,
        "--node-manager-port": node.node_port,
        "--dashboard-agent-listen-port": 0,
        "--min-worker-port": 0,
        "--max-worker-port": 0,
        "--include-log-monitor": "false",
        "--temp-dir": node.folder or None,
        "--num-cpus": node.cpus,
        "--num-gpus": node.gpus,
        "--object-store-memory": node.store_bytes,
        "--labels": f"{ROLE_LABEL}={node.role}" if node.role else None,
    }
    flags = [f"{key}={value}" for key, value in every.items() if value is not None]
    return [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *words, *flags]
