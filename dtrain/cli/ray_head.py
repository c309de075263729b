"""Ray's head: a process of its own, on loopback, with a token; it outlives the control plane."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dtrain.cli.ports import free_ports
from dtrain.cli.processes import Recorded, start
from dtrain.cli.ray_node import Node, head_command

LOOPBACK = "127.0.0.1"

_LONGEST_TEMP = 40
"""Characters of Ray's folder: it puts sockets 66 deeper, and a socket's path may have 107."""


def ray_environment(environment: Mapping[str, str], *, token_file: Path, is_alone: bool = True) -> dict[str, str]:
    """`environment` with everything that Ray is told by it: for its head and for every process that joins.

    Ray's own defaults differ by how it is started, and processes that disagree wait for each other for a minute.

    Args:
        environment: of a process.
        token_file: holds Ray's token.
        is_alone: nothing of this Ray listens beyond loopback, and no other node joins.
    """
    others = {key: value for key, value in environment.items() if key not in {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_NAMESPACE"}}
    return others | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": str(
            int(not is_alone)
        ),  # despite its name: 0 binds to 127.0.0.1, not to the host's address
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # or SIGTERM waits 30 s for detached actors, which never go by themselves
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }


def start_ray(
    home: Path, *, environment: Mapping[str, str], cpus: int | None, gpus: int | None, store_bytes: int | None = None
) -> Recorded:
    """A head has been started, with `home`/logs for its log; its `facts` say where it will answer and which folder it uses."""
    folder = home / "ray"
    shutil.rmtree(folder, ignore_errors=True)  # of the head before
    if len(str(folder)) > _LONGEST_TEMP:
        folder = Path(tempfile.mkdtemp(prefix="dtrain-ray-"))
    folder.mkdir(mode=0o700, exist_ok=True)
    (port,) = free_ports(1)
    command = head_command(Node(LOOPBACK, folder=str(folder), cpus=cpus, gpus=gpus, store_bytes=store_bytes), port=port)
    facts = {"address": f"{LOOPBACK}:{port}", "folder": str(folder)}
    return start(command, environment=environment, log=home / "logs" / "ray.log", facts=facts)


def forget_ray(head: Recorded) -> None:
    """Its folder is gone, if it is not in the home."""
    folder = Path(head.facts.get("folder", ""))
    if folder.name.startswith("dtrain-ray-"):
        shutil.rmtree(folder, ignore_errors=True)
