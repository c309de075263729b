"""Commands that are one part of dtrain each, in the foreground, as containers run them. Where they listen has to be said."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from dtrain.cli import home
from dtrain.cli.exits import Exit

_PATIENCE_S = 300.0


class Interface(StrEnum):
    """Where a job answers /metrics."""

    LOOPBACK = "loopback"
    NODE = "node"


RayToken = Annotated[Path | None, Option(help="Holds Ray's token; by default the home's, made by the head if missing.")]
NodeIp = Annotated[str, Option(help="Address at which other nodes reach this one; auto for that of this host's name.")]
NodePort = Annotated[int, Option(min=0, max=65535, help="Port of the raylet, for probes; 0 for a free one.")]
Folder = Annotated[str, Option(help="Folder of Ray's logs and sockets, with a short path; Ray's own by default.")]
Cpus = Annotated[int | None, Option(min=0, help="CPUs that jobs may use; all by default.")]
Gpus = Annotated[int | None, Option(min=0, help="GPUs that jobs may use; all by default.")]
Store = Annotated[int | None, Option(min=80_000_000, help="Bytes of the object store; a share of the memory by default.")]


def control_plane(
    ray_address: Annotated[str, Option(help="The Ray head, host:port; waited for.")],
    node_ip: NodeIp,
    address: Annotated[str, Option(help="Where the API listens.")] = "127.0.0.1:7400",
    metrics_address: Annotated[str, Option(help="Where /metrics and /sd listen.")] = "127.0.0.1:7401",
    token_file: Annotated[Path | None, Option(help="Holds the token that callers show; the home's by default.")] = None,
    ray_token_file: RayToken = None,
    job_logs: Annotated[
        Path | None, Option(help="Folder of jobs' logs that Ray's nodes share; in the home by default.")
    ] = None,
    node_port: NodePort = 0,
    folder: Folder = "",
    job_metrics: Annotated[Interface, Option(help="Where jobs answer /metrics: on loopback, or on their nodes' addresses.")] = (
        Interface.LOOPBACK
    ),
) -> None:
    """Run the control plane alone, in the foreground, with a Ray node of its own that runs no jobs."""
    from dtrain.cli.ray_node import Node, await_head, start_for_driver

    node, environment = Node(node_ip, node_port, folder).settled(), _environment(ray_token_file)
    places = [str(home.home()), ray_address, address, metrics_address]
    options = [f"--job-metrics={job_metrics}", "--log-to-terminal"]
    options += [f"--token-file={token_file}"] if token_file else []
    options += [f"--job-logs={job_logs}"] if job_logs else []
    await_head(ray_address, patience_s=_PATIENCE_S)
    options += [f"--node-pid={start_for_driver(node, head=ray_address, environment=environment)}"]
    _become([sys.executable, "-m", "dtrain.cli.control_plane", *places, *options], environment)


def ray_head(
    node_ip: NodeIp,
    port: Annotated[int, Option(min=1, max=65535, help="Where other nodes and the control plane join.")] = 6379,
    node_port: NodePort = 0,
    folder: Folder = "",
    ray_token_file: RayToken = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    store_bytes: Store = None,
) -> None:
    """Run a Ray head alone, in the foreground."""
    from dtrain.cli.ray_node import Node, head_command
    from dtrain.control.auth import token_in

    node = Node(node_ip, node_port, folder, cpus, gpus, store_bytes).settled()
    token_file = _ray_token(ray_token_file)
    if ray_token_file is None:
        token_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    token_in(token_file)  # it is there from now on
    _become(head_command(node, port=port), _environment(ray_token_file))


def ray_worker(
    head: Annotated[str, Option(help="The Ray head to join, host:port; waited for.")],
    node_ip: NodeIp,
    node_port: NodePort = 0,
    folder: Folder = "",
    ray_token_file: RayToken = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    store_bytes: Store = None,
) -> None:
    """Run a node that joins a Ray head, in the foreground."""
    from dtrain.cli.ray_node import Node, await_head, worker_command

    node = Node(node_ip, node_port, folder, cpus, gpus, store_bytes).settled()
    await_head(head, patience_s=_PATIENCE_S)
    _become(worker_command(node, head=head), _environment(ray_token_file))


def healthy(
    address: Annotated[str, Argument(metavar="HOST:PORT", help="Where it listens; auto for this host's own address.")],
    is_api: Annotated[bool, Option("--api", help="It is a control plane, which is asked whether it serves.")] = False,
) -> int:
    """Exit with 0 if a part answers: for health checks."""
    from dtrain.cli.ports import answers
    from dtrain.cli.ray_node import AUTO, own_address
    from dtrain.rpc.connection import host_and_port

    host, port = host_and_port(address)
    place = f"{own_address() if host == AUTO else host}:{port}"
    return Exit.OK if (_is_serving(place) if is_api else answers(place)) else Exit.UNAVAILABLE


def _is_serving(place: str) -> bool:
    from dtrain.client.health import is_serving  # gRPC takes its time to load

    return is_serving(place)


def _ray_token(named: Path | None) -> Path:
    return named or home.home() / "ray-token"


def _environment(ray_token_file: Path | None) -> dict[str, str]:
    from dtrain.cli.ray_head import ray_environment

    return ray_environment(home.environment(), token_file=_ray_token(ray_token_file), is_alone=False)


def _become(command: list[str], environment: dict[str, str]) -> None:
    """This process is `command` from now on, so that signals and exit codes are its own."""
    sys.stdout.flush()
    os.execve(command[0], command, environment)  # noqa: S606 - no shell is wanted
