"""The parts that containers run, without running them: what they would become, and what they refuse."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtrain.cli import parts, ray_node
from dtrain.cli.exits import Exit
from dtrain.cli.main import run
from dtrain.cli.ray_head import ray_environment
from dtrain.cli.ray_node import Node, head_command, worker_command
from dtrain.errors import UnavailableError


class Became(Exception):  # noqa: N818 - it is none
    """What the process would be now."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        super().__init__(command)
        self.command, self.environment = command, environment


@pytest.fixture
def head() -> Iterator[str]:
    """Somebody who accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def become(_: str, command: list[str], environment: dict[str, str]) -> None:
        raise Became(command, environment)

    monkeypatch.setenv("DTRAIN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(parts.os, "execve", become)
    return tmp_path / "home"


def test_head_makes_a_token_and_lets_others_join(home: Path) -> None:
    with pytest.raises(Became) as became:
        parts.ray_head(node_ip="10.1.2.3")
    assert "--node-ip-address=10.1.2.3" in became.value.command
    assert became.value.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "1"
    assert became.value.environment["RAY_AUTH_MODE"] == "token"
    assert oct((home / "ray-token").stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize(
    "words",
    [
        ["ray-head"],
        ["ray-head", "--node-ip", "127.0.0.1"],
        ["ray-worker", "--head", "h:1", "--node-ip", "localhost"],
        ["control-plane", "--ray-address", "h:1", "--node-ip", "127.0.0.1"],
    ],
)
def test_nobody_listens_where_it_was_not_said_or_in_vain(words: list[str]) -> None:
    assert run(words) == Exit.INPUT


def test_head_uses_the_token_that_it_is_given(home: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 43)
    with pytest.raises(Became) as became:
        parts.ray_head(node_ip="10.1.2.3", ray_token_file=token)
    assert became.value.environment["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert not home.exists()
    assert token.read_text() not in " ".join(became.value.command)


def test_worker_joins_its_head(head: str) -> None:
    with pytest.raises(Became) as became:
        parts.ray_worker(head=head, node_ip="10.1.2.3", cpus=3)
    assert {f"--address={head}", "--num-cpus=3"} <= set(became.value.command)


def test_worker_without_a_head_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with pytest.raises(UnavailableError, match="no Ray head answers"):
        ray_node.await_head(f"127.0.0.1:{port}", patience_s=0)


@pytest.mark.parametrize(
    ("node", "flag"),
    [
        (Node("10.1.2.3", node_port=6380), "--node-manager-port=6380"),
        (Node("10.1.2.3", cpus=0), "--num-cpus=0"),
        (Node("10.1.2.3", gpus=2), "--num-gpus=2"),
        (Node("10.1.2.3", store_bytes=80_000_000), "--object-store-memory=80000000"),
        (Node("10.1.2.3", folder="/tmp/ray"), "--temp-dir=/tmp/ray"),
        (Node("10.1.2.3", role="control-plane"), "--labels=dtrain-role=control-plane"),
    ],
)
def test_node_is_what_was_asked_for(node: Node, flag: str) -> None:
    assert flag in worker_command(node, head="h:1")
    assert flag in head_command(node, port=6379)


def test_node_leaves_to_ray_what_was_not_asked_for() -> None:
    flags = {word.partition("=")[0] for word in worker_command(Node("10.1.2.3"), head="h:1")}
    assert not flags & {"--num-cpus", "--num-gpus", "--object-store-memory", "--temp-dir", "--labels"}


def test_worker_is_told_nothing_that_only_heads_may_be_told() -> None:
    flags = {word.partition("=")[0] for word in worker_command(Node("10.1.2.3"), head="h:1")}
    assert not flags & {"--head", "--port", "--include-dashboard", "--ray-client-server-port"}


def test_auto_is_the_address_of_the_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda name: {socket.gethostname(): "10.9.8.7"}[name])
    assert Node("auto").settled().node_ip == "10.9.8.7"
    assert Node("10.1.1.1").settled().node_ip == "10.1.1.1"


def test_healthy_is_who_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert run(["healthy", f"127.0.0.1:{port}"]) == Exit.OK
    assert run(["healthy", f"127.0.0.1:{port}"]) == Exit.UNAVAILABLE
    assert run(["healthy", f"127.0.0.1:{port}", "--api"]) == Exit.UNAVAILABLE
    assert run(["healthy", "nowhere"]) == Exit.INPUT


def test_ray_without_loopback_is_told_nothing_else_differently(tmp_path: Path) -> None:
    alone, joined = (ray_environment({}, token_file=tmp_path, is_alone=value) for value in (True, False))
    assert {key for key in alone if alone[key] != joined[key]} == {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"}


def test_control_plane_hands_on_what_it_was_told(tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def start(node: Node, *, head: str, environment: dict[str, str]) -> int:
        started.append((node, head))
        return 4711

    monkeypatch.setattr(ray_node, "start_for_driver", start)
    with pytest.raises(Became) as became:
        parts.control_plane(
            ray_address=head,
            node_ip="10.1.2.3",
            token_file=tmp_path / "t",
            job_logs=tmp_path / "l",
            job_metrics=parts.Interface.NODE,
        )
    assert started == [(Node("10.1.2.3"), head)]
    assert {f"--token-file={tmp_path / 't'}", f"--job-logs={tmp_path / 'l'}", "--job-metrics=node", "--node-pid=4711"} <= set(
        became.value.command
    )
