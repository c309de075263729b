"""Code on its way to a control plane: the SDK and the command line against a real server, and the launcher's twin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import grpc
import pytest

from dtrain.cli.exits import Exit
from dtrain.cli.main import run
from dtrain.client.client import Client
from dtrain.code.archive import pack
from dtrain.errors import AuthError, ConflictError, DriftError, InputError, NotFoundError, StateError
from dtrain.job.lifecycle import State
from dtrain.job.memory import MemoryLauncher
from dtrain.job.protocols import JobRecord
from dtrain.job.status import Outcome
from dtrain.rpc.v1 import job_service_pb2 as pb
from dtrain.spec.job import JobSpec
from tests.support.code import write_code
from tests.support.control_plane import a_control_plane, a_spec, eventually

FILES = {"tasks.py": "a = 1", "words.json": "[]", ".env": "SECRET=1"}


class Keeper(MemoryLauncher):
    """Remembers what it launched."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[JobRecord] = []

    def launch(self, record: JobRecord) -> None:
        self.records.append(record)
        super().launch(record)


@pytest.fixture
def launcher() -> Keeper:
    return Keeper()


@pytest.fixture
def home(tmp_path: Path, launcher: Keeper) -> Iterator[Path]:
    with a_control_plane(tmp_path / "home", launcher):
        yield tmp_path / "home"


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    with Client.from_home(home) as made:
        yield made


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return write_code(tmp_path / "code", FILES)


def with_code(folder: Path) -> JobSpec:
    return a_spec().model_copy(update={"code": str(folder)})


def kept(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "code").glob("*")) if (home / "code").exists() else []


def test_code_is_sent_once_and_its_job_names_it(client: Client, code: Path, home: Path, launcher: Keeper) -> None:
    archive = pack(code)
    first = client.submit(with_code(code))
    assert (first.code_archive, first.code_sha256) == (archive.sha256, archive.code_sha256)
    sent: list[str] = []
    upload = client._stub.UploadCode
    client._stub.UploadCode = lambda *args, **options: (sent.append("again"), upload(*args, **options))[1]
    assert client.submit(with_code(code)).code_archive == archive.sha256
    assert (kept(home), sent) == ([f"{archive.sha256}.tar"], [])
    assert (home / "code" / kept(home)[0]).read_bytes() == archive.content
    eventually(lambda: len(launcher.records) == 2)
    assert {record.code_archive for record in launcher.records} == {archive.sha256}


def test_job_without_code_sends_none(client: Client, home: Path) -> None:
    assert client.submit(a_spec()).code_archive == ""
    assert kept(home) == []


def test_large_code_comes_whole(client: Client, code: Path, home: Path) -> None:
    (code / "table.bin").write_bytes(bytes(range(256)) * 40_000)
    archive = pack(code)
    client.submit(with_code(code))
    assert (home / "code" / f"{archive.sha256}.tar").read_bytes() == archive.content


def test_request_id_with_other_code_is_refused(client: Client, code: Path) -> None:
    first = client.submit(with_code(code), request_id="mine")
    assert client.submit(with_code(code), request_id="mine").job_id == first.job_id
    (code / "tasks.py").write_text("a = 2")
    with pytest.raises(ConflictError, match="another code"):
        client.submit(with_code(code), request_id="mine")


def test_code_with_a_link_is_refused_before_anything_is_sent(client: Client, code: Path, home: Path) -> None:
    (code / "alias.py").symlink_to("tasks.py")
    with pytest.raises(InputError, match="is a link"):
        client.submit(with_code(code))
    assert list(client.list()) == []


def test_job_of_code_that_is_not_kept_is_refused(client: Client) -> None:
    request = pb.CreateJobRequest(spec_json=a_spec().to_json(), code_archive="a" * 64, code_sha256="b" * 64)
    with pytest.raises(NotFoundError, match="is not kept here"):
        client._call(client._stub.CreateJob, request)
    job = suspended(client, a_spec())
    with pytest.raises(NotFoundError, match="is not kept here"):
        client._call(client._stub.ResumeJob, pb.ResumeJobRequest(job=job, code_archive="a" * 64, code_sha256="b" * 64))


@pytest.mark.parametrize("sha256", ["", "../../x", "a" * 63])
def test_digest_that_is_none_is_an_invalid_argument(client: Client, sha256: str) -> None:
    with pytest.raises(InputError):
        client._call(client._stub.GetCode, pb.GetCodeRequest(code_archive=sha256))


def test_archive_with_other_bytes_than_its_digest_is_refused(client: Client, code: Path, home: Path) -> None:
    archive = pack(code)
    content = archive.content[:1] + b"?" + archive.content[2:]
    part = pb.UploadCodeRequest(code_archive=archive.sha256, num_bytes=len(content), chunk=content)
    with pytest.raises(InputError, match="has the digest"):
        client._call(lambda request, **options: client._stub.UploadCode(iter([request]), **options), part)
    assert kept(home) == []


def test_upload_that_is_refused_at_its_beginning_says_why_while_the_rest_is_still_sent(client: Client, home: Path) -> None:
    def parts(request: pb.UploadCodeRequest, **options: object) -> object:
        rest = (pb.UploadCodeRequest(chunk=bytes(1 << 20)) for _ in range(200))
        return client._stub.UploadCode(chain([request], rest), **options)

    with pytest.raises(InputError, match="has 1 to"):
        client._call(parts, pb.UploadCodeRequest(code_archive="a" * 64, num_bytes=1 << 40))
    assert kept(home) == []


def test_upload_without_the_token_is_refused(client: Client, code: Path, home: Path) -> None:
    with Client(client._address, token="wrong") as stranger, pytest.raises(AuthError):
        stranger.submit(with_code(code))
    parts = iter([pb.UploadCodeRequest(code_archive="a" * 64, num_bytes=1, chunk=b"x")])
    with pytest.raises(grpc.RpcError) as caught:
        client._stub.UploadCode(parts, timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
    assert kept(home) == []


def suspended(client: Client, spec: JobSpec) -> str:
    job = client.submit(spec).job_id
    client.wait(job, until={State.RUNNING}, timeout_s=60)
    client.suspend(job)
    return client.wait(job, until={State.SUSPENDED}, timeout_s=60).job_id


def test_resume_goes_on_with_the_code_that_was_sent_though_its_folder_is_gone(
    client: Client, code: Path, launcher: Keeper
) -> None:
    job = suspended(client, with_code(code))
    before = client.get(job).code_archive
    code.rename(code.with_name("elsewhere"))
    assert client.resume(job).code_archive == before
    eventually(lambda: [record.code_archive for record in launcher.records] == [before, before])


def test_resume_with_changed_code_waits_for_a_word(client: Client, code: Path, home: Path, launcher: Keeper) -> None:
    job = suspended(client, with_code(code))
    before = client.get(job).code_archive
    (code / "tasks.py").write_text("a = 2")
    with pytest.raises(DriftError, match="was changed since it was sent"):
        client.resume(job)
    assert (client.get(job).state, len(kept(home))) == (State.SUSPENDED, 1)
    accepted = client.resume(job, accept_code_change=True)
    assert accepted.code_archive == pack(code).sha256 != before
    assert client.resume(job, accept_code_change=True).code_archive == accepted.code_archive  # whose answer was lost asks again
    eventually(lambda: len(launcher.records) == 2)
    assert (launcher.records[1].code_archive, launcher.records[1].accept_code_change) == (accepted.code_archive, True)


def test_resume_keeps_the_code_if_it_is_told_to(client: Client, code: Path) -> None:
    job = suspended(client, with_code(code))
    before = client.get(job).code_archive
    (code / "tasks.py").write_text("a = 2")
    assert client.resume(job, keep_code=True).code_archive == before


def test_resume_takes_code_from_the_folder_that_is_named(client: Client, code: Path, tmp_path: Path) -> None:
    job = suspended(client, with_code(code))
    other = write_code(tmp_path / "other", {**FILES, "tasks.py": "a = 3"})
    assert client.resume(job, code=other).code_archive == pack(other).sha256


def test_other_code_for_a_start_that_was_made_is_refused(client: Client, code: Path, tmp_path: Path) -> None:
    job = client.submit(with_code(code)).job_id
    client.wait(job, until={State.RUNNING}, timeout_s=60)
    other = write_code(tmp_path / "other", {"tasks.py": "a = 3"})
    with pytest.raises(StateError, match="other code is for its next start"):
        client.resume(job, code=other)
    assert client.get(job).code_archive == pack(code).sha256


def test_job_whose_code_is_lost_is_blocked_until_it_was_sent_again(
    client: Client, code: Path, launcher: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launch(record: JobRecord) -> None:
        raise NotFoundError("the code is not kept here", fix="send it again")

    with monkeypatch.context() as patch:
        patch.setattr(launcher, "launch", launch)
        job = client.submit(with_code(code)).job_id
        eventually(lambda: client.get(job).state is State.BLOCKED)
    assert (client.get(job).reason, client.get(job).message) == ("CODE_LOST", "the code is not kept here; send it again")
    client.resume(job, accept_code_change=True)
    assert client.wait(job, until={State.RUNNING}, timeout_s=60).state is State.RUNNING
    launcher.finish(job, Outcome.SUCCEEDED)


JOB = "name: clicks\ntask: clicks:Task\nsource: {topic: clicks, bootstrap: 'localhost:9092'}\ncheckpoint: {to: checkpoints}\n"


def test_command_line_sends_the_job_files_folder_without_checkpoints_and_home(
    tmp_path: Path, launcher: Keeper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_code(
        tmp_path / "job", {"clicks.py": "", "job.yaml": JOB, "checkpoints/clicks-1/blob": "", ".dtrainignore": "*.csv\n"}
    )
    write_code(folder, {"rows.csv": ""})
    monkeypatch.chdir(folder)
    for name in ("DTRAIN_ADDRESS", "DTRAIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DTRAIN_HOME", str(folder / "home"))
    with a_control_plane(folder / "home", launcher):
        assert run(["submit", "job.yaml", "-o", "json"]) == Exit.OK
        job = json.loads(capsys.readouterr().out)
        only = write_code(tmp_path / "only", {"clicks.py": "", "job.yaml": JOB, ".dtrainignore": "*.csv\n"})
        assert job["code_archive"] == pack(only).sha256
        eventually(lambda: len(launcher.records) > 0)
        assert run(["suspend", job["job_id"]]) == Exit.OK
        eventually(lambda: run(["get", job["job_id"], "-o", "json"]) == 0 and "SUSPENDED" in capsys.readouterr().out)
        (folder / "clicks.py").write_text("a = 2")
        assert run(["resume", job["job_id"]]) == Exit.CONFLICT
        assert "--keep-code" in capsys.readouterr().err
        assert run(["resume", job["job_id"], "--keep-code"]) == Exit.OK
