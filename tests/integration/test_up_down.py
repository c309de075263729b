"""`dtrain up` and `dtrain down` for real: Ray's head and the control plane, killed in every way, and nothing left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dtrain.cli.exits import Exit
from dtrain.cli.main import run
from dtrain.cli.processes import Register
from tests.support.commands import as_a_process
from tests.support.control_plane import eventually

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


class Home:
    """A folder in which dtrain is up or down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ask(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command that starts nothing: in this process."""
        out, err = io.StringIO(), io.StringIO()
        variables = {"DTRAIN_HOME": str(self.folder)} | variables
        with as_a_process(Path.cwd(), **variables), redirect_stdout(out), redirect_stderr(err):
            code = run(list(words))
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def dtrain(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command in a process of its own, which what it starts outlives."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("DTRAIN_", "RAY_"))}
        environment |= {"DTRAIN_HOME": str(self.folder), "PYTHONPATH": str(ROOT)} | variables
        command = [sys.executable, "-m", "dtrain.cli.main", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)

    def up(self, *words: str) -> dict[str, Any]:
        done = self.dtrain("up", "--cpus", "1", "-o", "json", *words)
        assert done.returncode == Exit.OK, done.stderr
        value: dict[str, Any] = json.loads(done.stdout)
        return value

    def pid(self, role: str) -> int:
        process = Register(self.folder)[role]
        assert process is not None
        assert process.is_alive
        return process.pid

    def left(self) -> list[str]:
        """The processes that were told of this home's Ray token, as all of its Ray and its control plane are."""
        mark = f"RAY_AUTH_TOKEN_PATH={self.folder}".encode()
        return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark in _content(path)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def only_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("up") / "home")
    yield home
    assert home.dtrain("down").returncode == Exit.OK
    assert home.left() == []


@pytest.fixture
def home(only_home: Home) -> Home:
    """A home in which dtrain is up before each test."""
    if not Register(only_home.folder)["ray"]:
        only_home.up()
    return only_home


def test_up_makes_a_home_for_its_owner_alone(home: Home) -> None:
    modes = {name: oct((home.folder / name).stat().st_mode & 0o777) for name in (".", "logs", "token", "ray-token")}
    assert modes == {".": "0o700", "logs": "0o700", "token": "0o600", "ray-token": "0o600"}
    assert home.ask("list").stdout == "no jobs\n"


def test_up_elsewhere_than_where_it_runs_is_refused(home: Home) -> None:
    for option in ("--address", "--metrics-address"):
        done = home.ask("up", option, "127.0.0.1:1")
        assert done.returncode == Exit.CONFLICT, done.stderr
        assert "not at 127.0.0.1:1\n  leave the address out, or stop it first with: dtrain down" in done.stderr
    assert home.ask("up").returncode == Exit.OK


def test_up_listens_on_loopback_alone(home: Home) -> None:
    sockets = set()
    for pid in home.left():
        links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").glob("*") if path.is_symlink() and os.path.lexists(path))
        sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = {line[1].partition(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets}
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert listening


def test_up_twice_changes_nothing(home: Home) -> None:
    before = home.up(), home.pid("ray"), home.pid("control_plane")
    assert (home.up(), home.pid("ray"), home.pid("control_plane")) == before


def test_token_wrong_exits_with_its_code(home: Home) -> None:
    done = home.ask("list", DTRAIN_TOKEN="wrong")
    assert (done.returncode, done.stdout) == (Exit.AUTH, "")
    assert done.stderr.startswith("the token is missing or wrong")


def test_control_plane_killed_is_started_again_at_its_address_and_ray_stays(home: Home) -> None:
    before, ray, old = home.up(), home.pid("ray"), home.pid("control_plane")
    os.kill(old, signal.SIGKILL)
    eventually(lambda: not _content(Path(f"/proc/{old}/environ")))
    assert home.up()["address"] == before["address"]
    assert (home.pid("ray"), home.pid("control_plane") != old) == (ray, True)


def test_ray_killed_is_started_again_with_a_new_control_plane(home: Home) -> None:
    ray, control_plane = home.pid("ray"), home.pid("control_plane")
    os.kill(ray, signal.SIGKILL)
    eventually(lambda: not _content(Path(f"/proc/{ray}/environ")))
    home.up()
    assert home.pid("ray") != ray
    assert home.pid("control_plane") != control_plane
    assert home.ask("list").returncode == Exit.OK


def test_down_ends_what_a_killed_head_has_left(home: Home) -> None:
    folder = Register(home.folder)["ray"].facts["folder"]  # type: ignore[union-attr]
    os.kill(home.pid("ray"), signal.SIGKILL)
    assert home.dtrain("down").returncode == Exit.OK
    assert home.left() == []
    assert not Path(folder).exists() or Path(folder).is_relative_to(home.folder)
    again = home.ask("down")
    assert (again.returncode, again.stdout) == (Exit.OK, "nothing runs\n")
    assert home.ask("list").returncode == Exit.UNAVAILABLE


def test_up_where_the_port_is_taken_starts_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = home.ask("up", "--address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == Exit.UNAVAILABLE
    assert "is taken\n  stop what listens there" in done.stderr
    assert home.left() == []


def test_up_without_the_ray_that_it_should_use_leaves_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    done = home.ask("up", "--ray-address", f"127.0.0.1:{port}")
    assert done.returncode == Exit.UNAVAILABLE
    assert "give the address of a Ray head" in done.stderr
    assert not Register(home.folder)["control_plane"]


def test_up_in_a_home_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = Home(tmp_path / "file" / "home").ask("up")
    assert done.returncode == Exit.STORAGE
    assert "set DTRAIN_HOME to another folder" in done.stderr
