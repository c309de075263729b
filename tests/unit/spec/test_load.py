"""Job files as a whole: variables, overrides, folders, and text that is no job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtrain.errors import SpecError
from dtrain.spec.job import JobSpec
from dtrain.spec.load import load_job

GOOD = """\
name: clicks
task: clicks:Task
source:
  topic: clicks
  bootstrap: ${BROKER}
batch: {rows: 64}
checkpoint: {to: checkpoints}
"""
ENVIRONMENT = {"BROKER": "localhost:9092", "ROWS": "128", "EMPTY": ""}


def load(folder: Path, text: str, **overrides: Any) -> JobSpec:
    (folder / "clicks.py").touch()
    (folder / "job.yaml").write_text(text)
    return load_job(folder / "job.yaml", environment=ENVIRONMENT, overrides=overrides)


def test_folders_relative_are_taken_from_the_job_file(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD)
    assert spec.code == str(tmp_path)
    assert spec.checkpoint.folder_of("clicks-1") == tmp_path / "checkpoints" / "clicks-1"


def test_code_of_a_built_in_task_stays_empty(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("clicks:Task", "dtrain.tasks:Any")).code == ""


@pytest.mark.parametrize(
    ("written", "rows"), [("${ROWS}", 128), ('"${ROWS}"', 128), ("${NONE:-32}", 32), ("${EMPTY:-16}", 16), ("1${NONE:-6}", 16)]
)
def test_variable_where_a_number_belongs_becomes_one(tmp_path: Path, written: str, rows: int) -> None:
    assert load(tmp_path, GOOD.replace("batch: {rows: 64}", f"batch:\n  rows: {written}")).batch.rows == rows


def test_variable_where_text_belongs_stays_text(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("name: clicks", "name: ${ROWS}")).name == "128"


def test_variable_escaped_is_left_alone(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "params: {a: '$${ROWS}'}\n").params == {"a": "${ROWS}"}


def test_overrides_stand_above_the_file(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD, **{"batch.rows": 7, "source.end": {"0": 9}, "workers.max": 3})
    assert (spec.batch.rows, spec.source.end, spec.workers.max) == (7, {0: 9}, 3)


def test_problems_many_are_all_told_in_order_of_lines(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, GOOD.replace("name: clicks", "name: C!").replace("rows: 64", "rows: 0") + "zebra: 1\n")
    assert [(e.path, e.line) for e in (caught.value, *caught.value.others)] == [("name", 1), ("batch.rows", 6), ("zebra", 8)]


@pytest.mark.parametrize(
    ("text", "line", "path", "words"),
    [
        ("", 1, "", "is empty"),
        ("- a\n", 1, "", "is not a mapping"),
        ("a: [1\n", 1, "", "is not YAML"),
        ("a: 1\nb: c: d\n", 2, "", "is not YAML"),
        ("a: \x00", 1, "", "is not YAML"),
        ("a: !!python/object:os.system x", 1, "a", "remove the tag"),
        ("a: {b: ${C}}", 1, "", "put quotes around variables"),
        ("a: &x [*x]", 1, "a", "too much"),
        ("? [a]\n: 1", 1, "", "a key must be a word"),
        (GOOD + "name: again\n", 8, "name", "stands twice, first in line 1"),
        (GOOD.replace("BROKER", "NOBODY"), 5, "source.bootstrap", "NOBODY is not set; export NOBODY=..."),
        (GOOD.replace("BROKER", "NO-NAME"), 5, "source.bootstrap", "not followed by a variable's name"),
        (GOOD.replace("${BROKER}", "localhost"), 5, "source.bootstrap", "is not host:port"),
        (GOOD.replace("{to: checkpoints}", "{to: 's3://b'}"), 7, "checkpoint.to", "s3:// is not supported yet"),
        (GOOD + "code: nowhere\n", 8, "code", "nowhere does not exist"),
        (GOOD.replace("clicks:Task", "cliks:Task"), 2, "task", "there is no module cliks"),
        (GOOD.replace("clicks:Task", "dtrain.tasks.none.such:Task"), 2, "task", "there is no module dtrain.tasks.none.such"),
        (
            GOOD + "workers: {max: 16}\n",
            8,
            "workers.max",
            "16 is more than `batch.num_slices` (8); raise that or use at most 8",
        ),
        (GOOD + "workers: {min: 3, max: 2}\n", 8, "workers.min", "3 is more than `workers.max` (2)"),
        (GOOD + "topic: clicks\n", 8, "topic", "put it into `source`"),
        (GOOD.replace("  topic: clicks\n", "  topic: clicks\n  start: 1370044800\n"), 5, "source.start", "not possible"),
        (GOOD.replace("  topic: clicks\n", "  topic: clicks\n  start: 2013-06-01\n"), 5, "source.start", "with its zone"),
    ],
)
def test_file_bad_is_refused_with_place_and_fix(tmp_path: Path, text: str, line: int, path: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text)
    error = caught.value
    assert error.path.startswith(path)
    assert (error.line, error.file) == (line, str(tmp_path / "job.yaml"))
    assert words in f"{error.reason}; {error.fix}"
    assert error.fix


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match=r"does not exist|cannot be read") as caught:
        load_job(tmp_path / name, environment={})
    assert caught.value.fix


def test_spec_survives_its_json(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD, **{"source.start": "2013-06-01T02:00:00+02:00", "evaluate.metrics": ["auroc"]})
    assert JobSpec.from_json(spec.to_json()) == spec
