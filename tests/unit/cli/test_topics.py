"""The commands about topics without a broker: what they write, how they look, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from dtrain.cli import skeleton
from dtrain.cli.exits import Exit
from dtrain.cli.main import run
from dtrain.cli.topic_screen import lag_screen, peek_screen, produced_text, topic_screen, topics_table
from dtrain.cli.topics import _guess_value, _write
from dtrain.data.block import RawRecord
from dtrain.data.guess import Guess, guess
from dtrain.errors import ConflictError
from dtrain.spec.load import load_job
from dtrain.spec.security import SecuritySpec
from tests.support.messages import arrow, json_object

ROWS = [json_object(user=i, context=[0.5, i, 1, 0], name="x", clicked=i % 2, **({"extra": 1} if i else {})) for i in range(4)]
TOPIC: dict[str, Any] = {
    "topic": "clicks",
    "topic_id": "5f2b3f0e-4c1c-4b5e-9a52-1f6c8e0a7d11",
    "num_offsets": 12_345,
    "offsets_per_s": 17.25,
    "retention_s": 604_800.0,
    "configs": {"retention.bytes": "1073741824", "cleanup.policy": "compact,delete", "max.message.bytes": "1048588"},
    "partitions": [
        {"partition": 0, "leader": 1, "begin": 5, "end": 12_350, "newest_s": 1_357_000_000.0, "offsets_per_s": 17.25},
        {"partition": 1, "leader": -1, "begin": 0, "end": 0, "newest_s": None, "offsets_per_s": None},
    ],
}
LAG: dict[str, Any] = {
    "job_id": "clicks-x7k2p",
    "state": "RUNNING",
    "group": "dtrain-clicks-x7k2p",
    "status_age_s": 60.0,
    "lag_offsets": 12,
    "lag_rows": 12_288,
    "lag_s": 3.2,
    "partitions": [
        {"partition": "clicks:0", "offset": 5, "row": 3, "end": 17, "lag_offsets": 12, "lag_rows": 12_288, "lag_s": 3.2, "lost_offsets": 4},
        {"partition": "clicks:1", "offset": 9, "row": 0, "end": 9, "lag_offsets": 0, "lag_rows": 0, "lag_s": None, "lost_offsets": 0},
    ],
}  # fmt: skip


@pytest.fixture
def found() -> Guess:
    return guess(RawRecord(offset, None, value, offset) for offset, value in enumerate(ROWS))


def shown(value: object, *, width: int) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(value)
    return capture.get()


def test_schema_has_what_fits_and_says_why_the_rest_does_not(found: Guess) -> None:
    assert skeleton.schema_text(found).splitlines() == [
        "dtrain.Schema({",
        '    "user": "int64",',
        '    "context": "float32[4]",',
        '    "name": dtrain.Column("string", buckets=1000),',
        '    "clicked": "int64",',
        '    # "extra": "int64",  has no value in 1 of 4 rows',
        "})",
    ]


def test_task_and_job_that_are_written_are_a_job_that_is_accepted(found: Guess, tmp_path: Path) -> None:
    (tmp_path / "my_clicks_v2_task.py").write_text(skeleton.task_text(found, topic="My.clicks-v2"))
    (tmp_path / "job.yaml").write_text(skeleton.job_text(found, topic="My.clicks-v2", bootstrap="kafka:9092"))
    job = load_job(tmp_path / "job.yaml", environment={})
    assert (job.name, job.task, job.source.format, job.source.bootstrap) == (
        "my-clicks-v2",
        "my_clicks_v2_task:Task",
        "json",
        "kafka:9092",
    )
    assert job.evaluate.metrics == ("auroc", "accuracy")
    compile((tmp_path / "my_clicks_v2_task.py").read_text(), "task", "exec")


@pytest.mark.parametrize("label", ["price", 'a "quoted" $name {x}', "it's", 'it\'s "both"', "ümläut\n", "💙", "back\\slash"])
def test_task_for_columns_with_any_name_is_python_that_has_it(label: str) -> None:
    found = guess([RawRecord(0, None, json.dumps({"x": 1, f"{label} text": "a", label: 0.5}).encode(), 0)])
    assert found.label == label
    task: dict[str, Any] = {}
    exec(compile(skeleton.task_text(found, topic="t"), "task", "exec"), task)
    assert task["Task"].label == label
    assert list(task["Task"].features.to_json()) == ["x", f"{label} text", label]
    assert task["TEXTS"] == (f"{label} text",)


@pytest.mark.parametrize("words", ["\nraise SystemExit('the topic ran')\n#", "\rraise SystemExit('the topic ran')\r#"])
def test_text_of_a_topic_is_never_python(words: str) -> None:
    """A type's own words hold names that whoever fills the topic chooses."""
    struct = pa.array([{words: 1}], pa.struct([(words, pa.int64())]))
    columns = {
        "x": [1],
        "y": [0.5],
        "s": struct,
        words: struct,
        "l": pa.array([[1]], pa.list_view(pa.field(words, pa.int64()))),
    }
    found = guess([RawRecord(0, None, arrow(columns), 0)])
    task: dict[str, Any] = {}
    exec(compile(skeleton.task_text(found, topic="t"), "task", "exec"), task)
    assert list(task["Task"].features.to_json()) == ["x", "y"]


def test_job_keeps_the_login_that_its_topic_was_read_with(found: Guess, tmp_path: Path) -> None:
    value = {
        "protocol": "sasl_ssl",
        "mechanism": "plain",
        "ca": "/a/${b}/c ä.pem",
        "username": {"env": "U"},
        "password": {"file": "/p"},
    }
    security = SecuritySpec.model_validate(value)
    (tmp_path / "clicks_task.py").touch()
    text = skeleton.job_text(found, topic="clicks", bootstrap="kafka:9092", security=security)
    (tmp_path / "job.yaml").write_text(text, encoding="utf-8")
    assert load_job(tmp_path / "job.yaml", environment={}).source.security == security


@pytest.mark.parametrize("length", [1, 239, 240, 241, 249])
def test_job_for_a_topic_of_any_length_is_accepted(found: Guess, tmp_path: Path, length: int) -> None:
    topic = "x" * length
    (tmp_path / f"{skeleton.module_of(topic)}.py").touch()
    (tmp_path / "job.yaml").write_text(skeleton.job_text(found, topic=topic, bootstrap="kafka:9092"))
    assert load_job(tmp_path / "job.yaml", environment={}).source.dead_letters is not None


def test_label_with_texts_alone_can_be_trained() -> None:
    found = guess([RawRecord(0, None, json_object(name="x", clicked=1), 0)])
    assert skeleton.can_train(found)


@pytest.mark.parametrize(
    ("topic", "module"), [("clicks", "clicks_task"), ("2013.Flights-x", "topic_2013_flights_x_task"), ("...", "topic__task")]
)
def test_module_has_a_name_that_python_can_import(topic: str, module: str) -> None:
    assert skeleton.module_of(topic) == module


def test_files_that_exist_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("mine")
    with pytest.raises(ConflictError, match=r"job\.yaml exists"):
        _write(tmp_path, {"a.py": "theirs", "job.yaml": "theirs"})
    assert (tmp_path / "job.yaml").read_text() == "mine"
    assert not (tmp_path / "a.py").exists()


@pytest.mark.parametrize("width", [80, 120])
def test_screens_keep_to_their_width_and_tell_what_matters(width: int, found: Guess) -> None:
    sample = _guess_value(found, num_rows=3)
    peeked = {"topic": "clicks"} | sample | {"schema": skeleton.schema_text(found), "files": {"job.yaml": ""}}
    produced = {"topic": "t", "rows": 2048, "messages": 2, "bytes": 1e6, "partitions": 4, "seconds": 0.5, "is_whole": True}
    screens = {
        "12,345": topics_table([TOPIC]),
        "about 17 rows a second": topic_screen(TOPIC | {"sample": sample}),
        '"context": "float32[4]"': peek_screen(peeked | {"written_to": None}),
        "2,048 rows in 2 messages": produced_text(produced),
        "4 offsets were deleted": lag_screen(LAG),
    }
    for words, value in screens.items():
        text = shown(value, width=width)
        assert words in text
        assert max(map(len, text.splitlines())) <= width


def test_topic_without_leaders_or_messages_says_so() -> None:
    empty = TOPIC | {"sample": _guess_value(guess([]), num_rows=3)}
    assert "none" in shown(topic_screen(empty), width=80)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["topics", "a/b"], "letters, digits"),
        (["topics", "-b", "localhost"], "is not host:port"),
        (["topics", "-b", "localhost:1", "--job", "job.yaml"], "leave one of them out"),
        (["peek"], "Missing argument 'TOPIC'"),
        (["produce", "rows.csv"], "Missing option '--topic'"),
        (["produce", "rows.xlsx", "-t", "t"], ".parquet"),
        (["produce", "rows.csv", "-t", "t", "--key", "absent"], "use for --key one of a, b"),
        (["produce", "rows.csv", "-t", "t", "--rows", "0"], "--rows"),
        (["produce", "rows.csv", "-t", "t", "--create", "--retention", "soon"], "write for example 7d"),
    ],
)
def test_wrong_words_are_refused_before_any_broker_is_asked(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "localhost:1")
    Path("rows.csv").write_text("a,b\n1,2\n")
    assert run(words) == Exit.INPUT
    out, err = capsys.readouterr()
    assert said in err
    assert (out, "Traceback" in err) == ("", False)


def test_file_that_is_not_there_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["produce", "absent.csv", "-t", "t"]) == Exit.NOT_FOUND
    assert "there is no file absent.csv" in capsys.readouterr().err
