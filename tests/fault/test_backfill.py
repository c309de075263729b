"""History then live: a job over files and then a topic, killed in the files, at the seam, and behind it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from dtrain.checkpoint.places import open_store
from dtrain.errors import DtrainError
from dtrain.steplog.entries import StepKind
from dtrain.steplog.positions import Positions
from tests.fault.campaign import PRELOADED, live, replayed
from tests.support.audit import audit_spec, id_messages, times_trained
from tests.support.files import parquet
from tests.support.kafka import Kafka

IDS_IN_FILES, NUM_IDS, COVERED = 12_000, 16_000, 3
IsReached = Callable[[Positions], bool]


def _ids(first: int, stop: int) -> pa.Table:
    return pa.table({"id": pa.array(range(first, stop), pa.int64())})


@pytest.mark.slow
@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_history_then_live_killed_everywhere_trains_every_record_once(kafka: Kafka, tmp_path: Path, order: str) -> None:
    topic = kafka.new_topic(partitions=2)
    for partition in range(2):  # what the files hold already
        kafka.produce(topic, partition, list(id_messages(COVERED * 10, rows=10)))
    (tmp_path / "files").mkdir()
    for number, first in enumerate(range(0, IDS_IN_FILES, 4000)):
        content = parquet(_ids(first, first + 4000), rows=1000)
        (tmp_path / "files" / f"ids-{number}.parquet").write_bytes(content)
    files = f"{tmp_path}/files/*.parquet"
    messages = list(id_messages(NUM_IDS, rows=10))[IDS_IN_FILES // 10 :]
    spec = audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=tmp_path / "job",
        num_ids=NUM_IDS,
        ends={p: COVERED + len(messages[p::2]) for p in range(2)},
        source={"start": dict.fromkeys(range(2), COVERED), "history": {"files": files}},
        batch={"rows": 16, "order": order},
        checkpoint={"every": 0.05},
    )
    store = open_store(tmp_path / "job")

    def is_done(positions: Positions, number: int) -> bool:
        end = store.find(None).ends
        assert end is not None
        return all(at >= end[p] for p, at in positions.items() if (p.topic == topic) == bool(number))

    def offsets(positions: Positions) -> list[int]:
        return sorted(at.offset for p, at in positions.items() if p.topic == topic)

    _life(tmp_path, spec.to_json(), until=lambda at: any(p.topic == files and o > (0, 0) for p, o in at.items()))
    assert offsets(store.find(None).progress.positions) == [COVERED, COVERED]
    (tmp_path / "files" / "ids-00.parquet").write_bytes(parquet(_ids(0, 50)))  # comes too late, and sorts between
    _life(tmp_path, spec.to_json(), until=lambda at: is_done(at, 0))
    assert offsets(store.find(None).progress.positions) == [COVERED, COVERED]
    middle = len(messages) // 2
    for partition in range(2):
        kafka.produce(topic, partition, messages[partition:middle:2])
    _life(tmp_path, spec.to_json(), until=lambda at: offsets(at) > [COVERED, COVERED])
    for partition in range(2):
        kafka.produce(topic, partition, messages[middle + (middle + partition) % 2 :: 2])
    _life(tmp_path, spec.to_json(), until=None)

    assert times_trained(store) == [1] * NUM_IDS
    steps = [entry for entry in store.entries(store.find(None).progress) if entry.kind is StepKind.DATA]
    stages = [{item.partition.topic for item in entry.ranges} for entry in steps]
    assert stages == sorted(stages, key=lambda stage: topic in stage)
    assert all(len(stage) == 1 for stage in stages)
    replayed(store, spec)


def _life(folder: Path, spec_json: str, *, until: IsReached | None) -> None:
    """One life of the job, ended by SIGKILL as soon as a checkpoint's positions are there; or lived to its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=live, args=(spec_json, str(folder / "job")))
    process.start()
    deadline_s, store = time.monotonic() + 90, open_store(folder / "job")
    while until is not None and process.exitcode is None:
        assert time.monotonic() < deadline_s
        with suppress(DtrainError):  # no checkpoint yet, or one that is just being deleted
            if until(store.find(None).progress.positions):
                os.kill(process.pid or 0, signal.SIGKILL)
                break  # once: the forkserver reaps it before its end is known here
        time.sleep(0.005)
    process.join(timeout=90)
    assert process.exitcode == (0 if until is None else -signal.SIGKILL)
