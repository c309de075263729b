"""The command line without a control plane: what it loads, and how it says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dtrain import errors
from dtrain.cli import exits, jobs
from dtrain.cli.exits import Exit, exit_of
from dtrain.cli.main import COMMANDS, name_of, run

HEAVY = ("torch", "ray", "pyarrow", "grpc", "kafka", "sqlalchemy", "pydantic", "rich", "ruamel.yaml")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DTRAIN_HOME", str(tmp_path / "home"))
    for name in ("DTRAIN_ADDRESS", "DTRAIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_help_loads_nothing_heavy() -> None:
    code = (
        f"import sys; from dtrain.cli.main import run; run(['--help']); sys.exit(str([m for m in {HEAVY} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    assert all(name_of(function) in done.stdout for group in COMMANDS.values() for function in group)


def test_help_documents_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == Exit.OK
    words = capsys.readouterr().out.split()
    assert all(str(int(code)) in words for code in Exit)


def test_exit_codes_cover_every_error() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DtrainError)]
    assert {kind.code for kind in kinds if exit_of(kind.code) is Exit.INTERNAL} == {"INTERNAL"}
    assert set(exits._CODES) <= {kind.code for kind in kinds}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["bogus"], Exit.INPUT, "No such command 'bogus'"),
        (["get"], Exit.INPUT, "Missing argument 'JOB'"),
        (["get", "x", "-o", "xml"], Exit.INPUT, "'xml' is not one of"),
        (["get", "x"], Exit.UNAVAILABLE, "start it with: dtrain up"),
        (["list", "--state", "ASLEEP"], Exit.INPUT, "there is no state 'ASLEEP'"),
        (["submit", "absent.yaml"], Exit.INPUT, "absent.yaml: does not exist"),
        (["submit", "absent.yaml", "--set", "workers.max"], Exit.INPUT, "--set workers.max=2"),
        (["verify"], Exit.INPUT, "name a job"),
        (["checkpoints", "--dir", "nowhere"], Exit.NOT_FOUND, "there is no checkpoint yet"),
    ],
)
def test_command_that_fails_says_so_in_words_and_code(
    words: list[str], code: Exit, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == code
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""


def test_error_as_json_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "absent.yaml", "-o", "json"]) == Exit.INPUT
    value = json.loads(capsys.readouterr().err)
    assert (value["error"]["kind"], value["error"]["file"]) == ("SpecError", "absent.yaml")
    assert value["error"]["fix"]


def test_job_file_with_many_mistakes_is_told_all_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "job.yaml").write_text("name: A\ntask: x:Y\nsource: {topic: t, bootstrap: b}\n")
    assert run(["submit", str(tmp_path / "job.yaml")]) == Exit.INPUT
    said = capsys.readouterr().err
    assert all(words in said for words in ("`name`", "`source.bootstrap`", "`checkpoint`: is missing"))


def test_bug_of_ours_is_told_with_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(jobs.home, "client", lambda: 1 / 0)
    assert run(["get", "x"]) == Exit.INTERNAL
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "this is a bug of dtrain's" in said


def test_schema_and_version_answer_without_a_control_plane(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["properties"]["source"]
    assert run(["version", "-o", "json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["server"] is None


@pytest.mark.parametrize("token", ["a\nb", "tökén"])
def test_token_that_cannot_be_sent_is_refused_in_words(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DTRAIN_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("DTRAIN_TOKEN", token)
    assert run(["list"]) == Exit.AUTH
    assert "set DTRAIN_TOKEN to the one" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--address", "--metrics-address"])
def test_address_that_is_none_is_refused_before_anything_is_started(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DTRAIN_HOME", str(tmp_path / "home"))
    assert run(["up", option, "foo"]) == Exit.INPUT
    assert "'foo' is not host:port" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
