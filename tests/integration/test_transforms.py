"""Every transform at once, on a real broker and a real Ray cluster, with each kind of process killed: which rows are in the weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dtrain.checkpoint.places import open_store
from dtrain.data.held_out import is_held_out
from dtrain.data.transforms import transforms_of
from dtrain.job.status import Outcome
from dtrain.local import run
from dtrain.replay.replay import replay
from dtrain.spec.job import JobSpec
from dtrain.steplog.fates import Fate
from dtrain.steplog.positions import Partition
from dtrain.stream.memory import MemorySource, MemoryTopic
from tests.support.audit import audit_spec, times_trained
from tests.support.cluster import ClusterJob
from tests.support.kafka import Kafka
from tests.support.messages import arrow

NUM_IDS, NUM_PARTITIONS, MESSAGE_ROWS, WINDOW, SHARE = 24_000, 4, 40, 2_000, 0.05
TRANSFORM = {
    "columns": {"twice": "int64", "order": "int64", "price": "float32"},
    "filter": "price > 0 and not price in [7, 8]",
    "deduplicate": {"by": "order", "window": WINDOW},
    "map": "audit_map:halved",
}


def fill(write: Callable[[int, list[bytes]], object], topic: str) -> tuple[dict[int, Fate], dict[int, int]]:
    """Write every id once, with orders that come again sooner and later; what must become of each id, and where partitions end."""
    fates: dict[int, Fate] = {}
    ends = {}
    for number in range(NUM_PARTITIONS):
        chosen = random.Random(number)
        partition, ids = Partition(topic, number), range(number, NUM_IDS, NUM_PARTITIONS)
        orders: list[int] = []
        prices = [chosen.randint(0, 20) for _ in ids]
        last: dict[int, int] = {}
        for place, id_ in enumerate(ids):
            is_again = place > 0 and chosen.random() < 0.3
            orders.append(orders[max(0, place - chosen.randint(1, 2 * WINDOW))] if is_again else id_)
            if prices[place] in (0, 7, 8):
                fates[id_] = Fate.FILTERED
                continue
            is_known = place - last.get(orders[-1], -(10**9)) <= WINDOW
            last[orders[-1]] = place
            where = np.array([place // MESSAGE_ROWS]), np.array([place % MESSAGE_ROWS])
            is_out = is_held_out(partition, *where, seed=0, share=SHARE)[0]
            fates[id_] = Fate.DUPLICATE if is_known else Fate.HELD_OUT if is_out else Fate.TRAINED
        table = pa.table({"twice": [2 * id_ for id_ in ids], "order": orders, "price": pa.array(prices, pa.float32())})
        messages = [arrow(table.slice(first, MESSAGE_ROWS)) for first in range(0, table.num_rows, MESSAGE_ROWS)]
        write(number, messages)
        ends[number] = len(messages)
    return fates, ends


def spec_of(topic: str, bootstrap: str, folder: Path, ends: dict[int, int]) -> JobSpec:
    return audit_spec(
        topic=topic,
        bootstrap=bootstrap,
        folder=folder,
        num_ids=NUM_IDS,
        ends=ends,
        workers={"min": 2, "max": 2, "cpus": 0.5},
        transform=TRANSFORM,
        evaluate={"held_out": SHARE},
    )


@pytest.fixture
def made(kafka: Kafka, cluster: Path, tmp_path: Path) -> Iterator[tuple[ClusterJob, dict[int, list[bytes]], dict[int, Fate]]]:
    """A job over a topic that holds nothing yet; what is to be written to each partition; and what must become of each id."""
    topic, held = kafka.new_topic(partitions=NUM_PARTITIONS), dict[int, list[bytes]]()
    fates, ends = fill(held.__setitem__, topic)
    spec = spec_of(topic, kafka.bootstrap, tmp_path / "checkpoints", ends)
    running = ClusterJob(spec, job_id=topic, logs=tmp_path / "logs")
    yield running, held, fates
    running.close()


@pytest.mark.slow
def test_job_with_every_transform_and_every_process_killed_trains_each_row_as_its_fate_says(
    kafka: Kafka, made: tuple[ClusterJob, dict[int, list[bytes]], dict[int, Fate]]
) -> None:
    job, held, fates = made
    for part, role in enumerate(("reader", "trainer", "coordinator")):
        step = job.status.step
        kafka.produce_part(job.record.job_id, held, part)
        job.wait_for_step(step + 20)
        job.kill(role)
    kafka.produce_part(job.record.job_id, held, 3)
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    assert times_trained(job.store) == [int(fates[id_] is Fate.TRAINED) for id_ in range(NUM_IDS)]
    counts = {fate: list(fates.values()).count(fate) for fate in Fate}
    status = job.status
    assert (status.rows_trained, status.rows_filtered) == (counts[Fate.TRAINED], counts[Fate.FILTERED])
    assert (status.rows_duplicate, status.rows_held_out) == (counts[Fate.DUPLICATE], counts[Fate.HELD_OUT])
    assert status.held_out_loss == 0  # nobody has trained these ids
    verdict = job.replay()
    assert verdict.is_equal, verdict.sentence
    assert (verdict.audit.lost, verdict.audit.doubled) == (0, 0)


def test_local_job_stopped_again_and_again_trains_each_row_as_its_fate_says(tmp_path: Path) -> None:
    topic = MemoryTopic("t", partitions=NUM_PARTITIONS)

    def write(number: int, values: list[bytes]) -> None:
        for value in values:
            topic.append(value, partition=number)

    fates, ends = fill(write, "t")
    spec = spec_of("t", "memory:1", tmp_path, ends)

    def source() -> MemorySource:
        made = MemorySource(spec.source, {"t": topic})
        made.transform_rows(transforms_of(spec))
        return made

    for steps in (7, 60, 10**9):
        asked = count()
        end = run(
            spec,
            folder=tmp_path / "job",
            on_status=lambda *_: None,
            should_stop=lambda asked=asked, steps=steps: next(asked) > steps,  # type: ignore[misc]
            source=source(),
        )
        assert end.outcome is (Outcome.STOPPED if steps < 10**9 else Outcome.SUCCEEDED), end.message
    store = open_store(tmp_path / "job")
    assert times_trained(store) == [int(fates[id_] is Fate.TRAINED) for id_ in range(NUM_IDS)]
    verdict = replay(store, source=source())
    assert verdict.is_equal, verdict.sentence
    assert (verdict.audit.lost, verdict.audit.doubled) == (0, 0)
