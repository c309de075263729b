"""faults.md row 10 on a real broker: columns added, reordered, dropped, retyped and null in mid-stream; and what becomes of the bad rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dtrain.checkpoint.places import open_store
from dtrain.cli.exits import Exit
from dtrain.cli.main import run as run_command
from dtrain.job.status import Observation, Outcome
from dtrain.local import run
from dtrain.replay.replay import replay
from dtrain.spec.job import JobSpec
from dtrain.stream.sources import open_source
from tests.support.audit import audit_spec, times_trained
from tests.support.commands import as_a_process
from tests.support.kafka import Kafka
from tests.support.messages import arrow

ROWS = 10
NUM_IDS = 200
TASK = """
import dtrain, torch
from torch import nn

class Ids(dtrain.Task):
    features = dtrain.Schema({
        "id": "int64",
        "x": "float32",
        "colour": dtrain.Column("string", vocabulary=["red", "green"], default=""),
        "user": dtrain.Column("string", buckets=50, default="nobody"),
        "size": dtrain.Column("float32", default=0, has_mask=True),
    })

    def model(self, params):
        weights = nn.Embedding(params["num_ids"], 1)
        nn.init.zeros_(weights.weight)
        return weights

    def optimizer(self, model, params): return torch.optim.SGD(model.parameters(), lr=1.0)

    def forward(self, model, batch):
        assert set(batch) == {"id", "x", "colour", "user", "size", "size_is_null"}
        assert batch["colour"].max() <= 2 and batch["user"].max() < 50
        return model(batch["id"])

    def loss(self, outputs, batch): return outputs.squeeze(1)
"""
REPAIRS = """
import pyarrow as pa

def repair(record):
    found = record.table()
    if "id" not in found.column_names:
        return None
    xs = found["x"] if "x" in found.column_names else pa.nulls(found.num_rows, pa.float32())
    return pa.table({"id": found["id"], "x": (xs.cast(pa.float32()) if xs.type == pa.string() else xs).fill_null(0)})
"""


def message(first: int, **changes: Any) -> bytes:
    """Rows `first` to `first + ROWS - 1`; `changes` are laid over the columns, None takes one out."""
    columns: dict[str, Any] = {
        "id": pa.array(range(first, first + ROWS), pa.int64()),
        "x": pa.array([0.5] * ROWS, pa.float32()),
        "colour": pa.array(["red", "blue"] * (ROWS // 2)),
        "user": pa.array([f"user-{i}" for i in range(ROWS)]),
        "size": pa.array([1.0] * ROWS, pa.float32()),
    }
    return arrow({name: column for name, column in {**columns, **changes}.items() if column is not None})


def reordered(first: int) -> bytes:
    table = pa.ipc.open_stream(message(first)).read_all()
    return arrow(table.select(table.column_names[::-1]))


STREAM = [
    message(0),
    message(10, more=["?"] * ROWS),
    reordered(20),
    message(30, id=pa.array(range(30, 40), pa.int16()), x=pa.array([1] * ROWS, pa.int8())),
    message(40, colour=None, size=None),
    message(50, x=None),
    message(60, x=["0.5"] * ROWS),
    message(70, x=pa.array([0.5, None] * (ROWS // 2), pa.float32())),
    message(80, x=pa.array([0.5] * (ROWS - 1) + [1e300], pa.float64())),
    message(90, user=pa.array([f"user-{i}" for i in range(ROWS)]).dictionary_encode(), colour=pa.nulls(ROWS)),
    message(100, id=None),
    message(110),
]
WHOLE = {5: "column 'x' is missing", 6: "column 'x': string is not float32", 10: "column 'id' is missing"}
EXPECTED = {
    **{(offset, 0): reason for offset, reason in WHOLE.items()},
    **{(7, row): "column 'x' is null" for row in range(1, ROWS, 2)},
    (8, 9): "column 'x': a double does not fit float32",
}
"""By offset and row, what is bad; every other row is trained."""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    name = f"evolving_{tmp_path.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(TASK)
    (folder / "repairs.py").write_text(REPAIRS)
    return folder


def spec_of(kafka: Kafka, topic: str, code: Path, *, num_messages: int, **source: Any) -> JobSpec:
    spec = audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=code.parent / "c",
        num_ids=NUM_IDS,
        ends={0: num_messages},
        source=source,
        checkpoint={"every": 0.05},
    )
    module = next(path.stem for path in code.glob("*.py") if path.stem != "repairs")
    return spec.model_copy(update={"task": f"{module}:Ids", "code": str(code)})


def trained(spec: JobSpec, code: Path) -> Observation:
    return run(spec, folder=code.parent / "c" / "audit", on_status=lambda *_: None, should_stop=lambda: False)


def times_of_rows(bad: dict[tuple[int, int], str]) -> list[int]:
    """How often each id is trained when `bad` is all that is bad."""
    times = [1] * (ROWS * len(STREAM)) + [0] * (NUM_IDS - ROWS * len(STREAM))
    for offset, row in bad:
        rows = range(ROWS) if offset in WHOLE else (row,)
        for one in rows:
            times[offset * ROWS + one] = 0
    return times


def test_every_change_in_mid_stream_is_taken_by_name_or_a_bad_row_and_replayed(kafka: Kafka, code: Path) -> None:
    topic, letters = kafka.new_topic(), kafka.new_topic()
    kafka.produce(topic, 0, STREAM)
    spec = spec_of(kafka, topic, code, num_messages=len(STREAM), on_bad_record={"send_to": letters, "budget": 0.5})
    ended = trained(spec, code)
    assert ended.outcome is Outcome.SUCCEEDED, ended.message
    store = open_store(code.parent / "c" / "audit")
    assert times_trained(store) == times_of_rows(EXPECTED)
    rejects = {
        (r.offset, r.row): r.reason
        for entry in store.entries(store.find(None).progress)
        for i in entry.ranges
        for r in i.rejects
    }
    assert rejects == EXPECTED
    assert ended.status is not None
    assert ended.status.rejects == {"missing": 2, "type": 1, "null": 5, "range": 1}
    found = {(record.key.decode(), dict(record.headers)["dtrain-reason"].decode()) for record in kafka.read(letters)}
    assert found == {(f"{topic}:0:{offset}:{row}", reason) for (offset, row), reason in EXPECTED.items()}
    verdict = replay(store, source=open_source(spec))
    assert (verdict.is_equal, verdict.audit.lost, verdict.audit.doubled, verdict.audit.rejected) == (True, 0, 0, len(EXPECTED))


@pytest.mark.parametrize("offset", sorted({offset for offset, _ in EXPECTED}))
def test_job_that_bears_no_bad_row_stops_at_it_and_names_it(kafka: Kafka, code: Path, offset: int) -> None:
    topic = kafka.new_topic()
    kafka.produce(topic, 0, [STREAM[0], STREAM[offset], STREAM[11]])
    ended = trained(spec_of(kafka, topic, code, num_messages=3), code)
    row, reason = next((row, reason) for (o, row), reason in EXPECTED.items() if o == offset)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "BAD_RECORDS")
    assert f"the first at {topic}:0:1:{row}: {reason}" in ended.message


def test_stream_of_another_schema_blocks_the_job_at_once_whatever_its_budget(kafka: Kafka, code: Path) -> None:
    topic = kafka.new_topic()
    kafka.produce(topic, 0, [STREAM[6]] * 200)
    dead_letters = {"send_to": kafka.new_topic(), "budget": 1.0}
    ended = trained(spec_of(kafka, topic, code, num_messages=200, on_bad_record=dead_letters), code)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "BAD_RECORDS")
    assert "not one of the first " in ended.message
    assert f"rows is what the task's features say, the first at {topic}:0:0:0: " in ended.message
    assert "column 'x': string is not float32; correct the task's `features`" in ended.message


def test_window_of_bad_rows_goes_on_after_a_restart(kafka: Kafka, code: Path) -> None:
    """4 of 1,000 rows are borne, a fifth is not, although a restart lies between them."""
    topic = kafka.new_topic()
    kafka.produce(topic, 0, [STREAM[0], *[b"?"] * 4])
    spec = spec_of(kafka, topic, code, num_messages=6, on_bad_record={"send_to": kafka.new_topic(), "budget": 0.004})
    polls = iter(range(1000))
    stopped = run(
        spec,
        folder=code.parent / "c" / "audit",
        on_status=lambda *_: None,
        should_stop=lambda: next(polls) > 30,
    )
    assert stopped.outcome is Outcome.STOPPED, stopped.message
    assert open_store(code.parent / "c" / "audit").find(None).progress.window.bad == 4
    kafka.produce(topic, 0, [b"?"])
    ended = trained(spec, code)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "BAD_RECORDS")
    assert "5 of the last 15 rows are bad" in ended.message


def test_features_that_changed_are_refused_on_resume(kafka: Kafka, code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = kafka.new_topic()
    kafka.produce(topic, 0, STREAM[:1])
    monkeypatch.syspath_prepend(code)
    spec = spec_of(kafka, topic, code, num_messages=1).model_copy(update={"code": ""})
    module = spec.task.partition(":")[0]
    assert trained(spec, code).outcome is Outcome.SUCCEEDED
    (code / f"{module}.py").write_text(TASK.replace('"x": "float32"', '"x": "float64" '))  # of another length: no old bytecode
    monkeypatch.delitem(sys.modules, module)
    ended = trained(spec, code)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DRIFT")
    assert "'x' is float64, was float32; restore them, or submit a new job" in ended.message


def redriven(code: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    with as_a_process(code, DTRAIN_HOME=str(code / "home")):
        ended = run_command(["redrive", "--dir", str(code.parent / "c" / "audit"), *words, "-o", "json"])
    out, err = capsys.readouterr()
    assert ended in (Exit.OK, Exit.JOB), err
    return ended, {value["record"].partition(":")[2]: value["outcome"] for value in json.loads(out)}


@pytest.mark.slow
def test_redriven_records_are_trained_once_by_the_next_job(
    kafka: Kafka, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, letters = kafka.new_topic(), kafka.new_topic(partitions=3)
    kafka.produce(topic, 0, STREAM)
    end = len(STREAM)
    spec = spec_of(kafka, topic, code, num_messages=end, on_bad_record={"send_to": letters, "budget": 0.5})
    assert trained(spec, code).outcome is Outcome.SUCCEEDED
    outcomes = {"0:5:0": "sent", "0:6:0": "sent", "0:7:1,3,5,7,9": "sent", "0:8:9": "refused", "0:10:0": "left"}
    words = ("--through", "repairs:repair")
    assert redriven(code, capsys, *words, "--dry-run") == (Exit.JOB, outcomes)
    assert len(kafka.read(topic)) == end
    assert redriven(code, capsys, *words) == (Exit.JOB, outcomes)
    assert redriven(code, capsys, *words) == (Exit.JOB, {"0:8:9": "refused", "0:10:0": "left"})
    assert len(kafka.read(topic)) == end + 3
    longer = spec_of(kafka, topic, code, num_messages=end + 3, on_bad_record={"send_to": kafka.new_topic(), "budget": 0.5})
    folder = code.parent / "c" / "next"
    assert run(longer, folder=folder, on_status=lambda *_: None, should_stop=lambda: False).outcome is Outcome.SUCCEEDED
    still = {place: reason for place, reason in EXPECTED.items() if place[0] in (8, 10)}
    assert times_trained(open_store(folder)) == times_of_rows(still)
