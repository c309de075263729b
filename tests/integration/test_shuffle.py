"""Shuffled rows on a real broker and a real Ray cluster, with each kind of process killed in the middle of a span."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dtrain.data.permutation import order_of
from dtrain.job.status import Outcome
from dtrain.replay.replay import replay
from dtrain.steplog.progress import Progress
from dtrain.steplog.spans import Part
from dtrain.stream.sources import open_source
from tests.support.audit import audit_spec, id_messages, times_trained
from tests.support.cluster import ClusterJob
from tests.support.kafka import Kafka

NUM_PARTITIONS, MESSAGE_ROWS, ROWS, SPAN_ROWS, NUM_SPANS = 4, 16, 16, 3_200, 3
NUM_IDS = NUM_SPANS * SPAN_ROWS + 1_000
STEPS = SPAN_ROWS // ROWS
FIRST_GATE, SECOND_GATE = 60, 140
"""Of the 200 parts of each span, those in which somebody waits until he may pass; plans are issued 64 ahead at most."""


def _id_at(span: int, part: int) -> int:
    """The id of the first row of a part: in strict order each partition gives a quarter of each span."""
    share = SPAN_ROWS // NUM_PARTITIONS
    row = int(order_of(Part(seed=0, opened=span * STEPS + 1, span_rows=SPAN_ROWS))[part * ROWS])
    message, place = divmod(span * share + row % share, MESSAGE_ROWS)
    return (message * NUM_PARTITIONS + row // share) * MESSAGE_ROWS + place


class GatedJob(ClusterJob):
    """A job that does not come to the end of a span before it may."""

    gates: Path

    def come_to(self, span: int, part: int) -> None:
        """A generation trains in this span, and cannot have come further than to the gate in `part`."""
        self.wait_for_step(span * STEPS + part - 50)
        assert self.status.step <= span * STEPS + part

    def open(self, span: int, part: int) -> None:
        (self.gates / str(_id_at(span, part))).touch()

    def open_all(self) -> None:
        for span in range(NUM_SPANS):
            self.open(span, FIRST_GATE)
            self.open(span, SECOND_GATE)

    def lose_all_in_first_span(self) -> Progress:
        """Coordinator and trainers are gone, and the newest checkpoint, of which this is the progress, lies between the gates."""
        self.come_to(0, FIRST_GATE)
        self.open(0, FIRST_GATE)  # a checkpoint is due, behind what was issued by now, which does not reach the second gate
        self.wait(lambda _: self.store.find(None).progress.step >= FIRST_GATE)
        for pid in (*self.pids("coordinator"), *self.pids("trainer")):
            os.kill(pid, signal.SIGKILL)
        progress = self.store.find(None).progress
        assert progress.span is not None
        return progress


@pytest.fixture
def job(kafka: Kafka, cluster: Path, tmp_path: Path) -> Iterator[GatedJob]:
    topic = kafka.new_topic(partitions=NUM_PARTITIONS)
    messages = list(id_messages(NUM_IDS, rows=MESSAGE_ROWS))
    for number in range(NUM_PARTITIONS):
        kafka.produce(topic, number, messages[number::NUM_PARTITIONS])
    gates = [_id_at(span, part) for span in range(NUM_SPANS) for part in (FIRST_GATE, SECOND_GATE)]
    GatedJob.gates = tmp_path / "gates"
    GatedJob.gates.mkdir()
    spec = audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=tmp_path / "checkpoints",
        num_ids=NUM_IDS,
        ends={number: len(messages[number::NUM_PARTITIONS]) for number in range(NUM_PARTITIONS)},
        task="gated_task:GatedTask",
        params={"gates": gates, "folder": str(GatedJob.gates)},
        workers={"min": 2, "max": 2, "cpus": 0.5},
        batch={"rows": ROWS, "shuffle_rows": SPAN_ROWS, "order": "strict"},
        checkpoint={"every": 0.05, "keep": 10_000},
    )
    running = GatedJob(spec, job_id=topic, logs=tmp_path / "logs")
    yield running
    running.close()


def test_job_whose_processes_are_killed_in_the_middle_of_spans_trains_every_row_once(job: GatedJob) -> None:
    for span, role in enumerate(("trainer", "coordinator", "reader")):
        job.come_to(span, FIRST_GATE)
        job.kill(role)
        job.open(span, FIRST_GATE)
        job.come_to(span, SECOND_GATE)
        job.open(span, SECOND_GATE)
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    job.check()
    progress = job.store.find(None).progress
    assert progress.span is None
    parts = [(entry.part, entry.num_rows) for entry in job.store.entries(progress) if entry.part is not None]
    opened = [part.opened for part, _ in parts if part.start == 0]
    assert opened == [1 + span * STEPS for span in range(NUM_SPANS + 1)]
    assert sum(num_rows for _, num_rows in parts) == NUM_IDS


def test_job_of_which_nothing_is_left_goes_on_from_the_middle_of_a_span_with_other_workers(job: GatedJob) -> None:
    killed_at = job.lose_all_in_first_span()
    job.record = replace(job.record, workers=1)
    job.open_all()
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    job.check()
    parents = [fence.parent for fence in job.store.fences().values() if fence.parent is not None]
    begun_at = job.store.read_manifest(parents[-1])
    assert begun_at.progress.span is not None
    assert begun_at.progress.step >= killed_at.step
    with closing(open_source(job.spec)) as source:
        verdict = replay(job.store, source=source, start=begun_at.name)
    assert verdict.is_equal, verdict.sentence
    assert (verdict.audit.lost, verdict.audit.doubled) == (0, 0)


def test_job_whose_open_span_is_gone_from_the_topic_is_blocked_until_what_is_left_of_it_may_be_left_out(
    job: GatedJob, kafka: Kafka
) -> None:
    at = job.lose_all_in_first_span()
    for partition, place in at.positions.items():
        kafka.delete_before(partition.topic, partition.number, place.offset)
    job.open_all()
    ended = job.wait_for_end()
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DATA_LOSS")
    job.launcher.remove(job.record.job_id)
    job.launch_next(allow_gap=True)
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    entries = list(job.store.entries(job.store.find(None).progress))
    num_lost = sum(entry.num_rows for entry in entries if entry.skipped == "lost")
    assert at.span is not None
    assert 0 < num_lost <= at.span.num_left
    assert sorted(times_trained(job.store)) == [0] * num_lost + [1] * (NUM_IDS - num_lost)
    assert job.told("the rest of a span is not trained")
