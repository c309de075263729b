"""What a job requires is packages by name; anything else is refused where the user sits."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.errors import SpecError
from dtrain.spec.job import JobSpec
from dtrain.spec.load import load_job
from dtrain.spec.requirements import requirements_of

JOB = """
name: a
task: task:Task
requirements: {requirements}
source: {{files: rows.csv}}
checkpoint: {{to: checkpoints}}
"""


def load(folder: Path, requirements: str, **files: str) -> JobSpec:
    (folder / "task.py").touch()
    for name, content in files.items():
        (folder / f"{name}.txt").write_text(content, encoding="utf-8")
    (folder / "job.yaml").write_text(JOB.format(requirements=requirements), encoding="utf-8")
    return load_job(folder / "job.yaml", environment={})


def test_list_is_what_it_says_however_it_is_spaced(tmp_path: Path) -> None:
    spec = load(tmp_path, """['einops == 0.8.1', "tokenizers>=0.21", 'a; python_version > "3"', 'ray[tune]']""")
    assert spec.requirements == ("einops==0.8.1", "tokenizers>=0.21", 'a; python_version > "3"', "ray[tune]")
    assert requirements_of(spec.requirements, code="") == spec.requirements
    assert JobSpec.from_json(spec.to_json()) == spec
    assert spec.requirements_file == ""


def test_job_without_requirements_requires_nothing(tmp_path: Path) -> None:
    assert (load(tmp_path, "[]").requirements, load(tmp_path, "''").requirements) == ((), ())


def test_file_in_the_code_is_read_with_its_comments_left_out(tmp_path: Path) -> None:
    spec = load(tmp_path, "./needs.txt", needs="# https://a:b@c\n\neinops==0.8.1  # for layers\r\ntokenizers\ntokenizers\n")
    assert spec.requirements == spec.requirements_file == "needs.txt"
    assert requirements_of(spec.requirements, code=str(tmp_path)) == ("einops==0.8.1", "tokenizers")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("einops=0.8", "is no requirement of a package"),
        ("-e .", "`code`: they are sent"),
        ("-r more.txt", "write what is in that file here"),
        ("--extra-index-url=secret", "UV_DEFAULT_INDEX"),
        ("./mine", "is a path"),
        ("dist/mine-1.0-py3-none-any.whl", "is a path"),
        ("mine @ https://me:secret@host/mine.whl", "an address stands"),
        ("git+https://me:secret@host/mine", "an address stands"),
        ("einops==0.8 --hash=sha256:00", "fixes versions and hashes itself"),
        ("einops==0.8 \\", "goes on in another line"),
    ],
)
def test_line_that_is_no_package_by_name_is_refused_with_field_and_line(tmp_path: Path, line: str, words: str) -> None:
    for requirements, place in ((f"['{line}']", "job.yaml:4, `requirements`"), ("needs.txt", "line 2 of needs.txt")):
        with pytest.raises(SpecError) as caught:
            load(tmp_path, requirements, needs=f"a\n{line}\n")
        assert words in str(caught.value)
        assert place in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ("einops==0.8.1", "is a requirement, not a file; write a list"),
        ("none.txt", "cannot be read in the folder of the code"),
        ("/etc/passwd", "is no file in the folder of the code"),
        ("../needs.txt", "is no file in the folder of the code"),
        ("[a, a]", "is there twice"),
        (str([f"a{number}" for number in range(501)]), "501 are too many"),
    ],
)
def test_what_is_neither_a_list_of_packages_nor_a_file_of_the_code_is_refused(
    tmp_path: Path, requirements: str, words: str
) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        load(tmp_path, requirements)
    assert (caught.value.path, caught.value.line) == ("requirements", 4)
