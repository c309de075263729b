"""The commands about topics on a real broker, as a user calls them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from dtrain.cli.exits import Exit
from dtrain.cli.main import run
from dtrain.job.memory import MemoryLauncher
from dtrain.job.status import Outcome, PartitionStatus
from tests.support.commands import as_a_process
from tests.support.control_plane import a_control_plane, eventually
from tests.support.kafka import Kafka
from tests.support.messages import arrow, json_object

ROOT = Path(__file__).parents[2]
NUM_ROWS = 5000


@pytest.fixture(autouse=True)
def place(kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in {"KAFKA_BOOTSTRAP": kafka.bootstrap, "COLUMNS": "120", "DTRAIN_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def table(place: Path) -> pa.Table:
    """A table, also as `rows.parquet`."""
    columns = {
        "row": range(NUM_ROWS),
        "user": [i * 7 % 50 for i in range(NUM_ROWS)],
        "at": [1_700_000_000_000 + i for i in range(NUM_ROWS)],
    }
    pa.parquet.write_table(pa.table(columns), "rows.parquet")
    return pa.table(columns)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = Exit.OK) -> str:
    """What the command printed: on standard error when it failed."""
    capsys.readouterr()
    assert run(list(words)) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return err if code else out


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(said(capsys, *words, "-o", "json"))


def test_topics_shows_each_and_one_in_detail(kafka: Kafka, capsys: pytest.CaptureFixture[str]) -> None:
    name = kafka.new_topic(partitions=2, configs={"retention.ms": "3600000"})
    kafka.produce(name, 1, [arrow({"x": [1, 2]})] * 5, timestamps_ms=[1_700_000_000_000 + i for i in range(5)])
    kafka.delete_before(name, 1, 2)
    assert name in said(capsys, "topics", "-o", "name", "--over", "0").split()
    assert all(not each["topic"].startswith("__") for each in answer(capsys, "topics", "--over", "0"))
    value = answer(capsys, "topics", name, "--over", "0.1")
    assert (value["num_offsets"], value["retention_s"], value["offsets_per_s"]) == (3, 3600.0, 0.0)
    assert [(each["begin"], each["end"]) for each in value["partitions"]] == [(0, 0), (2, 5)]
    assert [each["newest_s"] for each in value["partitions"]] == [None, 1_700_000_000.004]
    assert len(value["topic_id"]) == 36
    text = said(capsys, "topics", name, "--over", "0")
    assert "arrow stream, 2 rows each" in text
    assert f"dtrain peek {name}" in text


def test_topics_tells_at_what_rate_records_come(kafka: Kafka, capsys: pytest.CaptureFixture[str]) -> None:
    name = kafka.new_topic()
    with (
        kafka.producer() as producer,
        subprocess.Popen(
            [sys.executable, "-m", "dtrain.cli.main", "topics", name, "--over", "2", "-o", "json"],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as process,
    ):
        began_s = time.monotonic()
        num_sent = 0
        while process.poll() is None:
            producer.send(name, b"x").get(10)
            num_sent += 1
            time.sleep(max(0, began_s + num_sent * 0.05 - time.monotonic()))
        assert process.stdout is not None
        value = json.loads(process.stdout.read())
    assert 0 < value["offsets_per_s"] <= num_sent / 2, "of what was sent, in two seconds or more"


def test_topic_that_is_not_there_and_broker_that_is_not_there_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (("topics", "absent"), ("peek", "absent")):
        assert "has no topic 'absent'" in said(capsys, *command, code=Exit.NOT_FOUND)
    err = said(capsys, "topics", "-b", "127.0.0.1:1", code=Exit.UNAVAILABLE)
    assert "no Kafka answers at" in err
    assert "correct --bootstrap" in err


def test_peek_finds_format_and_schema_and_writes_a_job_once(
    kafka: Kafka, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kafka.new_topic(partitions=2)
    for partition in range(2):
        kafka.produce(name, partition, [json_object(x=[i, 1], y=i % 2) for i in range(20)])
    value = answer(capsys, "peek", name, "--rows", "2")
    assert (value["format"], value["num_messages"], len(value["rows"]), value["label"]) == ("json", 40, 2, "y")
    assert value["schema"] == 'dtrain.Schema({\n    "x": "int64[2]",\n    "y": "int64",\n})'
    assert "train with: dtrain local first/job.yaml" in said(capsys, "peek", name, "--write", "first")
    assert name in Path("first/job.yaml").read_text()
    assert "exists" in said(capsys, "peek", name, "--write", "first", code=Exit.CONFLICT)


@pytest.mark.parametrize("row", [{"n": 3, "x": [0.5, 2e9]}, {}])
def test_what_peek_writes_for_texts_trains_as_it_is(
    row: dict[str, Any], kafka: Kafka, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kafka.new_topic()
    kafka.produce(name, 0, [json_object(**row, carrier=f"c{i % 7}", late=i % 2) for i in range(600)])
    said(capsys, "peek", name, "--write", "first")
    (module,) = (path.stem for path in Path("first").glob("*.py"))
    sys.modules.pop(module, None)  # as in another process
    with as_a_process(place):
        value = json.loads(said(capsys, "local", "first/job.yaml", "--set", "source.end=latest", "-o", "json").splitlines()[-1])
    assert (value["rows_trained"], value["rows_rejected"], value["outcome"]) == (600, 0, "succeeded")


def test_peek_where_nothing_can_be_trained_says_so(kafka: Kafka, capsys: pytest.CaptureFixture[str]) -> None:
    name = kafka.new_topic()
    assert "holds no message" in said(capsys, "peek", name, code=Exit.NOT_FOUND)
    kafka.produce(name, 0, [b"\x00\xff\x01", None])
    assert "has to say more about these" in said(capsys, "peek", name)
    assert "raw bytes" in said(capsys, "peek", name, "--write", "x", code=Exit.INPUT)


@pytest.mark.parametrize("key", [[], ["--key", "user"]])
def test_produce_sends_every_row_once_with_time_and_place(
    key: list[str], kafka: Kafka, table: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"produced-{kafka.new_topic()}"
    options = ["--create", "--partitions", "3", "--rows", "100", "--timestamp", "at"]
    value = answer(capsys, "produce", "rows.parquet", "--topic", name, *options, *key)
    assert (value["rows"], value["partitions"], value["is_whole"]) == (NUM_ROWS, 3, True)
    records = kafka.read(name)
    assert len(records) == value["messages"]
    tables = [pa.ipc.open_stream(record.value).read_all() for record in records]
    assert pa.concat_tables(tables).sort_by("row") == table
    assert [record.timestamp for record in records] == [max(each["at"].to_pylist()) for each in tables]
    if key:
        places = {
            user: record.partition for record, each in zip(records, tables, strict=True) for user in each["user"].to_pylist()
        }
        assert all(
            places[user] == record.partition
            for record, each in zip(records, tables, strict=True)
            for user in each["user"].to_pylist()
        )
        with kafka.producer() as producer:
            theirs = {user: producer.send(name, b"x", key=str(user).encode()).get(10).partition for user in (0, 7, 49)}
        assert theirs == {user: places[user] for user in theirs}
    else:
        assert sorted(sum(record.partition == number for record in records) for number in range(3)) == [16, 17, 17]
    assert answer(capsys, "topics", name, "--over", "0")["retention_s"] is None


def test_produce_into_a_topic_that_is_there_or_is_not(
    kafka: Kafka, table: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kafka.new_topic(partitions=1, configs={"max.message.bytes": "1000"})
    assert "there is a topic" in said(capsys, "produce", "rows.parquet", "-t", name, "--create", code=Exit.CONFLICT)
    assert "make it with --create" in said(capsys, "produce", "rows.parquet", "-t", "absent", code=Exit.NOT_FOUND)
    assert "use a smaller --rows" in said(capsys, "produce", "rows.parquet", "-t", name, code=Exit.INPUT)
    assert "0 rows are known to be in the topic" in said(capsys, "produce", "rows.parquet", "-t", name, code=Exit.INPUT)


def test_produce_of_old_rows_into_a_topic_that_forgets_warns(
    kafka: Kafka, table: pa.Table, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kafka.new_topic(configs={"retention.ms": "3600000"})
    assert run(["produce", "rows.parquet", "-t", name, "--timestamp", "at"]) == Exit.OK
    assert "Kafka will delete it soon" in capsys.readouterr().err


def test_produce_with_times_far_ahead_names_the_setting(kafka: Kafka, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.csv").write_text("at\n32503680000000\n")
    name = kafka.new_topic()
    assert "takes no such timestamps" in said(capsys, "produce", "rows.csv", "-t", name, "--timestamp", "at", code=Exit.INPUT)


def test_produce_keeps_its_pace_and_interrupted_says_what_is_there(kafka: Kafka, table: pa.Table) -> None:
    name = kafka.new_topic()
    command = [sys.executable, "-m", "dtrain.cli.main", "produce", "rows.parquet", "-t", name, "--rows", "10", "--rate", "100"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        eventually(lambda: len(kafka.read(name)) >= 5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    assert process.returncode == Exit.INTERRUPTED, err
    value = json.loads(out)
    assert (value["is_whole"], value["messages"]) == (False, len(kafka.read(name)))
    assert value["rows"] / value["seconds"] < 140


def test_produce_on_a_terminal_shows_how_far_it_is(kafka: Kafka, table: pa.Table) -> None:
    name, (reading, writing) = kafka.new_topic(), pty.openpty()
    command = [
        sys.executable,
        "-m",
        "dtrain.cli.main",
        "produce",
        "rows.parquet",
        "-t",
        name,
        "--rows",
        "100",
        "--rate",
        "10000",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}
    with subprocess.Popen(command, stdout=writing, stderr=writing, env=environment) as process:
        os.close(writing)
        seen = b""
        while chunk := _read(reading):
            seen += chunk
    assert process.returncode == Exit.OK
    assert b"a second" in seen
    assert b"100%" in seen
    assert b"5,000 rows in 50 messages" in seen


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # a terminal whose other end is closed
        return b""


def test_lag_is_what_the_job_says_beside_what_the_broker_says(
    kafka: Kafka, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = kafka.new_topic(partitions=2)
    wrote_s = time.time()
    kafka.produce(name, 0, [arrow({"x": range(10)})] * 8, timestamps_ms=[int((wrote_s - 60) * 1000)] * 8)
    Path("task.py").touch()
    Path("job.yaml").write_text(
        f"name: lagging\ntask: task:T\nsource: {{topic: {name}, bootstrap: '{kafka.bootstrap}'}}\ncheckpoint: {{to: c}}\n"
    )
    launcher = MemoryLauncher()
    with a_control_plane(place / "home", launcher):
        job_id = said(capsys, "submit", "job.yaml", "-o", "name").strip()
        assert "has read nothing yet" in said(capsys, "lag", job_id, code=Exit.CONFLICT)
        eventually(lambda: job_id in launcher.coordinators)
        found = launcher.coordinators[job_id]
        found.status = replace(
            found.status, partitions=(PartitionStatus(f"{name}:0", 3, 4, 5), PartitionStatus(f"{name}:1", 0, 0, 0))
        )
        eventually(lambda: answer(capsys, "get", job_id)["status"]["partitions"] != [])
        launcher.finish(job_id, Outcome.BLOCKED)
        value = answer(capsys, "lag", "lagging")
        assert (value["lag_offsets"], value["lag_rows"], value["group"]) == (5, 46, f"dtrain-{job_id}")
        assert 60 <= value["lag_s"] <= 61 + time.time() - wrote_s
        assert [each["lag_offsets"] for each in value["partitions"]] == [5, 0]
        assert "3 row 4" in said(capsys, "lag", job_id)
        assert said(capsys, "lag", job_id, "-o", "name").strip() == job_id
