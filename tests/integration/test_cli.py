"""The commands against a control plane over the launcher's twin."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain.cli.exits import Exit
from dtrain.cli.main import run
from dtrain.job.lifecycle import State
from dtrain.job.memory import MemoryLauncher
from dtrain.job.status import Outcome
from tests.support.control_plane import a_control_plane, eventually

JOB = "name: clicks\ntask: clicks:Task\nsource: {topic: clicks, bootstrap: '${BROKER}'}\ncheckpoint: {to: checkpoints}\n"


@pytest.fixture
def launcher() -> MemoryLauncher:
    return MemoryLauncher()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, launcher: MemoryLauncher, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "clicks.py").touch()
    (tmp_path / "job.yaml").write_text(JOB)
    monkeypatch.chdir(tmp_path)
    for name, value in {"DTRAIN_HOME": str(tmp_path / "home"), "BROKER": "localhost:9092", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    for name in ("DTRAIN_ADDRESS", "DTRAIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with a_control_plane(tmp_path / "home", launcher):
        yield tmp_path / "home"


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = Exit.OK) -> str:
    """What the command printed."""
    capsys.readouterr()
    assert run(list(words)) == code, capsys.readouterr().err
    return capsys.readouterr().out


def submitted(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The id of a job that has made a step."""
    job_id = said(capsys, "submit", "job.yaml", "-o", "name", *words).strip()
    eventually(lambda: json.loads(said(capsys, "get", job_id, "-o", "json"))["status"]["step"] > 0)
    return job_id


def test_submit_tells_the_job_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(said(capsys, "submit", "job.yaml", "--set", "batch.rows=64", "-o", "json"))
    assert (value["name"], value["spec"]["batch"]["rows"]) == ("clicks", 64)
    assert "name: clicks" in said(capsys, "submit", "job.yaml", "-o", "yaml")
    assert "submitted clicks-" in said(capsys, "submit", "job.yaml")


def test_submit_twice_with_one_request_id_answers_one_job(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("submit", "job.yaml", "--request-id", "once", "-o", "name")
    assert said(capsys, *words) == said(capsys, *words)
    assert run([*words, "--set", "batch.rows=2"]) == Exit.CONFLICT


def test_verbs_lead_a_job_through_its_life(capsys: pytest.CaptureFixture[str]) -> None:
    job_id = submitted(capsys)
    assert job_id in said(capsys, "list")
    assert said(capsys, "list", "--state", "running", "-o", "name").split() == [job_id]
    assert "RUNNING" in said(capsys, "get", "clicks")
    said(capsys, "checkpoint", job_id)
    said(capsys, "suspend", job_id)
    eventually(lambda: "SUSPENDED" in said(capsys, "get", job_id))
    said(capsys, "resume", job_id)
    eventually(lambda: "RUNNING" in said(capsys, "get", job_id))
    said(capsys, "cancel", job_id)
    eventually(lambda: "CANCELLED" in said(capsys, "get", job_id))
    said(capsys, "resume", job_id, code=Exit.CONFLICT)


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.SUCCEEDED, Exit.OK), (Outcome.FAILED, Exit.JOB), (Outcome.BLOCKED, Exit.JOB)]
)
def test_watch_ends_with_the_job_and_says_how(
    outcome: Outcome, code: Exit, launcher: MemoryLauncher, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = submitted(capsys)
    launcher.finish(job_id, outcome, reason="NAN_LOSS" if code else "", message="the loss is not a number" if code else "")
    assert run(["watch", job_id]) == code
    out, err = capsys.readouterr()
    assert outcome.value.upper() in out
    assert ("(NAN_LOSS): the loss is not a number" in err) == bool(code)


def test_watch_as_json_is_an_update_a_line(launcher: MemoryLauncher, capsys: pytest.CaptureFixture[str]) -> None:
    job_id = submitted(capsys)
    launcher.finish(job_id, Outcome.SUCCEEDED)
    lines = [json.loads(line) for line in said(capsys, "watch", job_id, "-o", "json").splitlines()]
    assert lines[-1]["job"]["state"] == State.SUCCEEDED
    numbers = [event["number"] for line in lines for event in line["events"]]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_watch_interrupted_says_that_the_job_goes_on(is_terminal: bool, capsys: pytest.CaptureFixture[str]) -> None:
    job_id = submitted(capsys)
    reading, writing = pty.openpty() if is_terminal else os.pipe()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    command = [sys.executable, "-m", "dtrain.cli.main", "watch", job_id]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment) as process:
        os.close(writing)  # else reading would wait for ever for a command that has ended
        seen = b""
        while b"rows" not in seen:
            chunk = os.read(reading, 1 << 16)
            assert chunk, seen
            seen += chunk
        process.send_signal(signal.SIGINT)
        assert f"{job_id} goes on" in process.communicate(timeout=90)[1]
    assert process.returncode == Exit.INTERRUPTED
    assert "RUNNING" in said(capsys, "get", job_id)
    assert (b"\x1b[" in seen) == is_terminal
    os.close(reading)


def test_logs_are_shown_by_time_and_process(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job_id = submitted(capsys)
    folder = home / "logs" / job_id
    folder.mkdir(parents=True)
    lines = [{"timestamp": f"2026-01-01T00:00:0{i}Z", "level": "info", "event": f"step {i}", "rows": i} for i in range(3)]
    (folder / "trainer-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "trainer-0     step 2  rows=2" in said(capsys, "logs", job_id, "--tail", "1")
    assert [json.loads(line)["message"] for line in said(capsys, "logs", job_id, "-o", "json").splitlines()] == [
        "step 0",
        "step 1",
        "step 2",
    ]


def test_token_wrong_is_refused_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DTRAIN_TOKEN", "wrong")
    assert run(["list"]) == Exit.AUTH
    assert "the token is missing or wrong" in capsys.readouterr().err


def test_address_of_another_machine_takes_the_token_of_the_environment(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DTRAIN_ADDRESS", json.loads((home / "connection.json").read_text())["address"])
    monkeypatch.setenv("DTRAIN_TOKEN", (home / "token").read_text().strip())
    monkeypatch.setenv("DTRAIN_HOME", str(tmp_path / "elsewhere"))
    assert said(capsys, "list") == "no jobs\n"
    monkeypatch.delenv("DTRAIN_TOKEN")
    assert run(["list"]) == Exit.AUTH
