from __future__ import annotations

from dataclasses import fields

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dtrain.job.lifecycle import State
from dtrain.job.protocols import JobRecord
from dtrain.job.status import Happening, JobStatus, Member, PartitionStatus, StoredEvent
from dtrain.job.view import Job, LogLine
from dtrain.rpc import convert
from dtrain.rpc.v1 import job_pb2

counts = st.integers(0, 2**62)
smalls = st.integers(-1, 2**31 - 1)
floats = st.floats(allow_nan=False)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scores = st.dictionaries(words, floats, max_size=3)
statuses = st.builds(
    JobStatus,
    attempt=counts,
    generation=counts,
    world_size=smalls,
    plan_number=counts,
    step=counts,
    rows_trained=counts,
    rows_rejected=counts,
    rejects=st.dictionaries(words, counts, max_size=3),
    rows_skipped=counts,
    rows_filtered=counts,
    rows_duplicate=counts,
    rows_held_out=counts,
    rows_per_s=floats,
    loss=st.none() | floats,
    scores=scores,
    total_loss=st.none() | floats,
    total_scores=scores,
    held_out_loss=st.none() | floats,
    held_out_scores=scores,
    partitions=st.lists(st.builds(PartitionStatus, words, counts, counts, counts), max_size=3).map(tuple),
    lag_rows=counts,
    lag_s=floats,
    freshness_s=st.none() | floats,
    num_recoveries=counts,
    last_recovery_s=st.none() | floats,
    last_checkpoint=words,
    last_checkpoint_at_s=floats,
    members=st.lists(st.builds(Member, words, smalls, smalls, counts, words, words), max_size=3).map(tuple),
    metrics_port=smalls,
    updated_at_s=floats,
)


@pytest.mark.parametrize(
    ("plain", "message"),
    [(JobStatus, job_pb2.JobStatus), (Job, job_pb2.Job), (LogLine, job_pb2.LogLine), (Member, job_pb2.Member)],
)
def test_message_has_the_fields_of_its_value(plain: type, message: type) -> None:
    assert [field.name for field in fields(plain)] == [field.name for field in message.DESCRIPTOR.fields]


@given(status=statuses)
def test_status_comes_back_from_the_wire_as_it_was(status: JobStatus) -> None:
    sent = convert.status_to_message(status).SerializeToString()
    assert convert.status_from_message(job_pb2.JobStatus.FromString(sent)) == status


@pytest.mark.parametrize("state", State)
def test_job_comes_back_from_the_wire_as_it_was(state: State) -> None:
    record = JobRecord(job_id="a-1", name="a", spec_json="{}", state=state, incarnation=3, created_at_s=1.5, updated_at_s=2.5)
    job = convert.job_from_message(convert.job_to_message(record))
    assert convert.job_from_message(convert.job_to_message(job)) == job
    assert (job.state, job.incarnation, job.created_at_s, job.status) == (state, 3, 1.5, JobStatus())


def test_job_in_a_state_of_a_later_version_reads_as_blocked() -> None:
    assert convert.job_from_message(job_pb2.Job(job_id="a-1", state=99)).state is State.BLOCKED


def test_event_and_log_line_come_back_from_the_wire_as_they_were() -> None:
    event = StoredEvent(3, Happening(at_s=1.5, kind="state", message="RUNNING"))
    line = LogLine("2026-01-01T00:00:00Z", "trainer-0", "info", "step", {"step": "7"})
    assert convert.event_from_message(convert.event_to_message(event)) == event
    assert convert.line_from_message(convert.line_to_message(line)) == line
