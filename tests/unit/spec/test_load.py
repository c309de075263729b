"""Job files as a whole: variables, overrides, folders, and text that is no job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dtrain.errors import SpecError
from dtrain.spec.job import JobSpec, SourceSpec
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


def reading(*lines: str) -> str:
    """GOOD, but for what is read."""
    text = GOOD.replace("batch: {rows: 64}\n", "")
    return text.replace("  topic: clicks\n", "".join(f"  {line}\n" for line in lines))


def load(folder: Path, text: str, **overrides: Any) -> JobSpec:
    (folder / "clicks.py").touch()
    (folder / "job.yaml").write_text(text)
    return load_job(folder / "job.yaml", environment=ENVIRONMENT, overrides=overrides)


def test_folders_relative_are_taken_from_the_job_file(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD)
    assert spec.code == str(tmp_path)
    assert spec.checkpoint.place_of("clicks-1") == str(tmp_path / "checkpoints" / "clicks-1")


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
        ("a:\n  b: !!binary aGVsbG8=", 2, "a.b", "write text, a number, true or false"),
        ("a: {b: ${C}}", 1, "", "put quotes around variables"),
        ("a: &x [*x]", 1, "a", "too much"),
        ("? [a]\n: 1", 1, "", "a key must be a word"),
        (GOOD + "name: again\n", 8, "name", "stands twice, first in line 1"),
        (GOOD.replace("BROKER", "NOBODY"), 5, "source.bootstrap", "NOBODY is not set; export NOBODY=..."),
        (GOOD.replace("BROKER", "NO-NAME"), 5, "source.bootstrap", "not followed by a variable's name"),
        (GOOD.replace("${BROKER}", "localhost"), 5, "source.bootstrap", "is not host:port"),
        (GOOD.replace("{to: checkpoints}", "{to: 'ftp://b'}"), 7, "checkpoint.to", "ftp:// is not supported"),
        (GOOD.replace("{to: checkpoints}", "{to: 's3://key:secret@b/x'}"), 7, "checkpoint.to", "not a bucket and a prefix"),
        (GOOD + "code: nowhere\n", 8, "code", "nowhere does not exist"),
        (GOOD.replace("clicks:Task", "cliks:Task"), 2, "task", "there is no module cliks"),
        (GOOD.replace("clicks:Task", "dtrain.none.such:Task"), 2, "task", "there is no module dtrain.none.such"),
        (
            GOOD + "workers: {max: 16}\n",
            8,
            "workers.max",
            "16 is more than `batch.num_slices` (8); raise that or use at most 8",
        ),
        (GOOD + "workers: {min: 3, max: 2}\n", 8, "workers.min", "3 is more than `workers.max` (2)"),
        (
            GOOD.replace("rows: 64", "rows: 64, shuffle_rows: 1000"),
            6,
            "batch.shuffle_rows",
            "1000 is no multiple of `batch.rows` (64); write 960, or 0 for no shuffle",
        ),
        (
            GOOD.replace("rows: 64", "rows: 64, shuffle_rows: 32"),
            6,
            "batch.shuffle_rows",
            "32 is no multiple of `batch.rows` (64); write 64, or 0 for no shuffle",
        ),
        (GOOD + "train: {schedule: {name: linear}}\n", 8, "train.schedule.total_steps", "0 leaves linear no step"),
        (GOOD + "train: {early_stop: {patience_rows: 9, metric: auroc}}\n", 8, "train.early_stop.metric", "is not scored"),
        (GOOD + "topic: clicks\n", 8, "topic", "put it into `source`"),
        (GOOD.replace("  topic: clicks\n", "  topic: clicks\n  start: 1370044800\n"), 5, "source.start", "not possible"),
        (GOOD.replace("  topic: clicks\n", "  topic: clicks\n  start: 2013-06-01\n"), 5, "source.start", "with its zone"),
        (
            GOOD.replace("  topic: clicks\n", "  topic: clicks\n  files: a.csv\n"),
            5,
            "source.files",
            "stands beside `source.topic`",
        ),
        (GOOD.replace("topic: clicks", "files: a.csv.gz"), 4, "source.files", ".gz does not say how the files are written"),
        (GOOD.replace("topic: clicks", "files: ftp://b/a.csv"), 4, "source.files", "ftp:// is not supported"),
        (GOOD.replace("topic: clicks", "files: s3://b"), 4, "source.files", "not a bucket and a key"),
        (GOOD.replace("topic: clicks", "files: a/**/b.csv"), 4, "source.files", "write * for each folder"),
        (
            GOOD.replace("topic: clicks", "history: {files: a.txt}"),
            4,
            "source.history",
            "or say it: `history: {files: …, format: …}`",
        ),
        (
            GOOD.replace("  topic: clicks\n", "  topic: clicks\n  history: {files: a.csv}\n"),
            3,
            "source.start",
            "latest would leave out",
        ),
        (GOOD.replace("topic: clicks", "files: a.csv\n  start: {0: 1}"), 5, "source.start", "is for topics"),
        (reading(), 3, "source.topic", "is missing; add `topic: …`, or `topics`, or `pattern`, or files in their place"),
        (reading("topic: a", "topics: [a, b]"), 5, "source.topics", "stands beside `topic`"),
        (reading("topics: [a, b]", "pattern: a.*"), 5, "source.pattern", "stands beside `topics`"),
        (reading("topics: []"), 3, "source.topic", "is missing"),
        (reading("topics: [a, b, a]"), 4, "source.topics", "'a' is named twice"),
        (reading("topics: [a, 'b/c']"), 4, "source.topics", "b/c"),
        (reading("pattern: '('"), 4, "source.pattern", "is no regular expression"),
        (reading("topic: a", "partitions: [0, 0]"), 5, "source.partitions", "0 is named twice"),
        (reading("topic: a", "partitions: [-1]"), 5, "source.partitions", "less than 0"),
        (reading("topic: a", "start: {0: {1: b}}"), 5, "source.start", "is text"),
        (reading("topics: [a]", "start: {a: 7}"), 5, "source.start", "not possible here"),
        (
            reading("topic: a", "on_bad_record: {send_to: a}"),
            5,
            "source.on_bad_record.send_to",
            "is a topic that the job trains on",
        ),
        (reading("topic: a", "on_lag: skip_to_latest"), 5, "source.on_lag", "wait or a section with over, do"),
        (reading("topic: a", "on_lag: {over: 0, do: skip_to_latest}"), 5, "source.on_lag.over", "less than 1"),
        (reading("topic: a", "on_lag: {over: 9, do: skip_to_latest}", "end: latest"), 5, "source.on_lag", "has an `end`"),
        (reading("topic: a", "align: 5m") + "batch: {order: strict}\n", 5, "source.align", "in a fixed order already"),
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


@pytest.mark.parametrize(
    "overrides",
    [
        {"source.start": "2013-06-01T02:00:00+02:00", "evaluate.metrics": ["auroc"]},
        {"source.start": {0: 7}, "source.partitions": [0, 3], "source.align": "5m"},
        {"source.topic": "", "source.topics": ["7", "b"], "source.start": {"7": {0: 7}, "b": {0: 8, 1: 9}}},
        {"source.topic": "", "source.pattern": r"clicks\..*", "source.on_lag": {"over": "10m", "do": "skip_to_latest"}},
    ],
)
def test_spec_survives_its_json(tmp_path: Path, overrides: dict[str, Any]) -> None:
    spec = load(tmp_path, GOOD, **overrides)
    assert JobSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("source", "files", "file_format"),
    [
        ("files: data/*.parquet", "data/*.parquet", "parquet"),
        ("files: /data/a.ndjson", "/data/a.ndjson", "jsonl"),
        ("files: s3://bucket/2013-*.arrow", "s3://bucket/2013-*.arrow", "arrow"),
        ("history: {files: data/part-*, format: csv}", "data/part-*", "csv"),
        ("topic: clicks\n  start: earliest\n  history: {files: a.csv}", "a.csv", "csv"),
    ],
)
def test_files_are_taken_from_the_job_files_folder_and_their_format_from_the_suffix(
    tmp_path: Path, source: str, files: str, file_format: str
) -> None:
    spec = load(tmp_path, GOOD.replace("topic: clicks", source))
    assert spec.source.backfill is not None
    assert spec.source.backfill.file_format == file_format
    assert spec.source.backfill.files == (files if "://" in files else str(tmp_path / files))
    assert JobSpec.from_json(spec.to_json()) == spec


class Counted:
    """Counts how often one is compared with another."""

    num_comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.num_comparisons += 1
        return self is other

    def __hash__(self) -> int:
        return id(self)


def test_looking_for_what_is_named_twice_takes_one_pass() -> None:
    """10,000 partitions took seconds, in which the control plane answered nobody."""
    things = tuple(Counted() for _ in range(300))
    assert SourceSpec._each_is_named_once(things) == things  # type: ignore[operator]
    assert Counted.num_comparisons < len(things)


def test_words_of_a_file_become_a_part_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\nb\n")
    columns: dict[str, Any] = {"k": {"type": "string", "vocabulary": "words.txt"}, "j": "int64"}
    spec = load(tmp_path, GOOD, **{"transform.columns": columns})
    (tmp_path / "words.txt").write_text("b\na\n")
    assert spec.transform.columns == {"k": {"type": "string", "vocabulary": ["a", "b"]}, "j": "int64"}
    columns["k"]["vocabulary"] = "absent.txt"
    with pytest.raises(SpecError, match="cannot be read") as caught:
        load(tmp_path, GOOD, **{"transform.columns": columns})
    assert caught.value.path == "transform.columns.k.vocabulary"


@pytest.mark.parametrize(
    ("column", "place", "words"),
    [
        ("{type: int64, defalt: 0}", ".defalt", "'defalt' is nothing that a column has"),
        ("{default: 0}", "", "has no type"),
        ("{type: int64, buckets: '10'}", ".buckets", "is not a whole number"),
        ("{type: int64, seed: null}", ".seed", "is not a whole number"),
        ("{type: string, vocabulary: 5}", ".vocabulary", "is not a list of texts"),
        ("{type: string, vocabulary: [5]}", ".vocabulary", "is not a list of texts"),
        ("{type: string, vocabulary: [a], unknown: [x]}", ".unknown", "is not zero or reject"),
    ],
)
def test_column_of_a_transform_that_is_none_is_refused_at_its_line(tmp_path: Path, column: str, place: str, words: str) -> None:
    text = f"{GOOD}transform:\n  columns:\n    k: {column}\n"
    with pytest.raises(SpecError, match=words) as caught:
        load(tmp_path, text)
    assert caught.value.path == f"transform.columns.k{place}"
    assert caught.value.line == len(text.splitlines())
