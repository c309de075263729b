"""Ray's head: a process of its own, on loopback, with a token; it outlives the control plane."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dtrain.cli.processes import Recorded, start
from dtrain.errors import UnavailableError

_LONGEST_TEMP = 40
"""Characters of Ray's folder: it puts sockets 66 deeper, and a socket's path may have 107."""


def ray_environment(environment: Mapping[str, str], *, token_file: Path) -> dict[str, str]:
    """`environment` with everything that Ray is told by it: for its head and for every process that joins.

    Ray's own defaults differ by how it is started, and processes that disagree wait for each other for a minute.
    """
    others = {key: value for key, value in environment.items() if key not in {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_NAMESPACE"}}
    return others | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # despite its name: bind to 127.0.0.1, not to the host's address
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # or SIGTERM waits 30 s for detached actors, which never go by themselves
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }


def ray_token(home: Path) -> Path:
    """The file with the cluster's token, mode 0600, made if it is not there."""
    file = home / "ray-token"
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as out:
            out.write(secrets.token_hex(32))
    return file


def start_ray(home: Path, *, environment: Mapping[str, str], cpus: int | None, gpus: int | None) -> Recorded:
    """A head has been started; its `facts` say where it will answer and which folder it uses.

    Args:
        home: of this dtrain; the head's log goes into its logs/.
        environment: as from `ray_environment`.
        cpus: how many Ray may share out; None for as many as there are.
        gpus: likewise.
    """
    folder = home / "ray"
    shutil.rmtree(folder, ignore_errors=True)  # of the head before
    if len(str(folder)) > _LONGEST_TEMP:
        folder = Path(tempfile.mkdtemp(prefix="dtrain-ray-"))
    folder.mkdir(mode=0o700, exist_ok=True)
    port, client_port = _free_ports(2)
    options = {
        "--node-ip-address": "127.0.0.1",
        "--port": port,
        "--ray-client-server-port": client_port,  # nobody uses it, but Ray starts it all the same
        "--dashboard-agent-listen-port": 0,
        "--min-worker-port": 0,
        "--max-worker-port": 0,
        "--include-dashboard": "false",
        "--include-log-monitor": "false",
        "--temp-dir": folder,
        **({} if cpus is None else {"--num-cpus": cpus}),
        **({} if gpus is None else {"--num-gpus": gpus}),
    }
    flags = [f"{key}={value}" for key, value in options.items()]
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--no-monitor",
        "--disable-usage-stats",
        *flags,
    ]
    facts = {"address": f"127.0.0.1:{port}", "folder": str(folder)}
    return start(command, environment=environment, log=home / "logs" / "ray.log", facts=facts)


def forget_ray(head: Recorded) -> None:
    """Its folder is gone, if it is not in the home."""
    folder = Path(head.facts.get("folder", ""))
    if folder.name.startswith("dtrain-ray-"):
        shutil.rmtree(folder, ignore_errors=True)


def answers(address: str) -> bool:
    """Somebody accepts connections at `address`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    try:
        probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    except OSError as error:
        raise UnavailableError(f"no free port on 127.0.0.1: {error.strerror}", fix="end processes that hold ports") from error
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
