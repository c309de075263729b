"""Which folder a job's code is taken from, and what in it is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.client.packing import folder_to_send, pack_code
from dtrain.code.archive import members
from dtrain.code.digest import digest_code
from dtrain.errors import DriftError, SpecError
from dtrain.job.view import Job
from dtrain.spec.job import JobSpec
from tests.support.code import write_code


def a_spec(folder: Path, *, to: str = "s3://bucket/x", **source: object) -> JobSpec:
    value = {"name": "a", "task": "task:Task", "code": str(folder), "source": source or {"topic": "t", "bootstrap": "b:1"}}
    return JobSpec.model_validate({**value, "checkpoint": {"to": to}})


def packed(spec: JobSpec, *besides: Path) -> set[str]:
    return {one.path for one in members(pack_code(spec, Path(spec.code), besides=besides).content)}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    names = ["task.py", "runs/job/blob", "data/2013.csv", "data/words.json", "home/jobs.db"]
    return write_code(tmp_path / "code", dict.fromkeys(names, ""))


def test_checkpoints_files_and_home_in_the_folder_are_no_code(code: Path) -> None:
    everything = {"task.py", "runs/job/blob", "data/2013.csv", "data/words.json", "home/jobs.db"}
    assert packed(a_spec(code)) == everything
    spec = a_spec(code, to=f"file://{code}/runs", files=f"{code}/data/*.csv")
    assert packed(spec, code / "home") == {"task.py", "data/words.json"}


@pytest.mark.parametrize("to", ["{code}", "{code}/..", "{code}/../runs"])
def test_checkpoints_elsewhere_leave_out_nothing(code: Path, to: str) -> None:
    assert "task.py" in packed(a_spec(code, to=to.format(code=code)))


def a_job(spec: JobSpec, **changes: str) -> Job:
    archive = pack_code(spec, Path(spec.code))
    told = {"code_archive": archive.sha256, "code_sha256": archive.code_sha256}
    return Job("a-1", "a", spec_json=spec.to_json(), **{**told, **changes})  # type: ignore[arg-type]


def test_folder_that_is_as_it_was_is_not_sent_again(code: Path) -> None:
    job = a_job(a_spec(code))
    assert job.code_sha256 == digest_code(code)
    (code / "data" / "words.json").write_text("[]")  # no code
    assert folder_to_send(job, is_change_accepted=False, is_code_kept=False) is None


def test_folder_that_was_changed_needs_a_word(code: Path) -> None:
    job = a_job(a_spec(code))
    (code / "task.py").write_text("a = 2")
    with pytest.raises(DriftError, match=r"was changed since it was sent.*--accept-code-change.*--keep-code"):
        folder_to_send(job, is_change_accepted=False, is_code_kept=False)
    assert folder_to_send(job, is_change_accepted=True, is_code_kept=False) == code
    assert folder_to_send(job, is_change_accepted=False, is_code_kept=True) is None


def test_folder_that_is_not_here_or_that_the_job_reads_itself_is_not_sent(code: Path) -> None:
    job = a_job(a_spec(code))
    assert folder_to_send(a_job(a_spec(code), code_archive=""), is_change_accepted=True, is_code_kept=False) is None
    code.rename(code.with_name("elsewhere"))
    assert folder_to_send(job, is_change_accepted=True, is_code_kept=False) is None


def test_file_of_requirements_is_code_and_is_read_before_it_is_sent(code: Path) -> None:
    write_code(code, {"needs.txt": "einops==0.8.1"})
    spec = a_spec(code).model_copy(update={"requirements": "needs.txt"})
    job = a_job(spec)
    assert folder_to_send(job, is_change_accepted=False, is_code_kept=False) is None
    write_code(code, {"needs.txt": "einops==0.8.2"})
    with pytest.raises(DriftError, match="was changed"):
        folder_to_send(job, is_change_accepted=False, is_code_kept=False)
    write_code(code, {"needs.txt": "-e ."})
    with pytest.raises(SpecError, match=r"line 1 of needs\.txt"):
        packed(spec)
