"""What every `JobStore` does, over the real one and its twin."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from dtrain.control.store import SqlJobStore
from dtrain.errors import ConflictError, NotFoundError, UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.memory import MemoryJobStore
from dtrain.job.protocols import JobRecord, JobStore
from dtrain.job.status import Happening, JobStatus, Member, PartitionStatus

_numbers = count(1)


def a_record(**changes: object) -> JobRecord:
    number = next(_numbers)
    record = JobRecord(job_id=f"flights-{number:05d}", name="flights", spec_json="{}", request_id=f"r{number}")
    return replace(record, **changes)


def happened(*messages: str) -> list[Happening]:
    return [Happening(at_s=1.5, kind="state", message=message) for message in messages]


@pytest.fixture(params=["memory", "sql"])
def store(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "memory":
        yield MemoryJobStore()
        return
    kept = SqlJobStore.open(tmp_path / "jobs.db")
    yield kept
    kept.close()


def test_create_answers_what_get_answers(store: JobStore) -> None:
    kept = store.create(a_record(created_at_s=12.25), happened("QUEUED"))
    assert kept.version == 1
    assert store.get(kept.job_id) == kept
    assert [event.number for event in store.events(kept.job_id, after=0, limit=10)] == [1]


def test_create_with_a_known_request_id_answers_the_job_that_exists(store: JobStore) -> None:
    first = store.create(a_record(request_id="same"), happened("QUEUED"))
    assert store.create(a_record(request_id="same"), happened("QUEUED")) == first
    assert len(store.page(after="", limit=10)) == len(store.events(first.job_id, after=0, limit=10)) == 1


def test_create_with_a_known_request_id_and_another_spec_is_refused(store: JobStore) -> None:
    store.create(a_record(request_id="same"))
    with pytest.raises(ConflictError, match="another spec"):
        store.create(a_record(request_id="same", spec_json='{"name":"other"}'))
    assert len(store.page(after="", limit=10)) == 1


def test_create_with_a_taken_job_id_can_be_tried_again(store: JobStore) -> None:
    first = store.create(a_record())
    with pytest.raises(UnavailableError, match="taken"):
        store.create(a_record(job_id=first.job_id))
    assert store.get(first.job_id) == first


def test_create_from_many_threads_with_one_request_id_makes_one_job(store: JobStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(store.create, [a_record(request_id="same") for _ in range(16)]))
    assert len({record.job_id for record in made}) == len(store.page(after="", limit=100)) == 1


def test_get_by_name_answers_the_newest(store: JobStore) -> None:
    store.create(a_record())
    newest = store.create(a_record())
    store.create(a_record(name="other"))
    assert store.get("flights") == newest


def test_get_prefers_an_id_to_a_newer_job_of_that_name(store: JobStore) -> None:
    first = store.create(a_record())
    store.create(a_record(name=first.job_id))
    assert store.get(first.job_id) == first


def test_get_of_an_unknown_job_says_so(store: JobStore) -> None:
    with pytest.raises(NotFoundError, match="no job 'nothing'"):
        store.get("nothing")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_hold_every_job_once_in_order_of_creation(store: JobStore, limit: int) -> None:
    made = [store.create(a_record()).job_id for _ in range(7)]
    found: list[str] = []
    while page := store.page(after=found[-1] if found else "", limit=limit):
        assert len(page) <= limit
        found += [record.job_id for record in page]
    assert found == made


def test_page_filters_by_state_behind_a_job_of_another_state(store: JobStore) -> None:
    first, second = store.create(a_record()), store.create(a_record(state=State.RUNNING))
    assert store.page(after=first.job_id, limit=9, state=State.RUNNING) == [second]
    assert store.page(after=second.job_id, limit=9, state=State.RUNNING) == []


def test_unsettled_leaves_out_only_finished_jobs_without_processes(store: JobStore) -> None:
    kept = [store.create(a_record(state=state)) for state in State if not state.is_terminal]
    kept += [store.create(a_record(state=state, has_actors=True)) for state in State if state.is_terminal]
    for state in State:
        if state.is_terminal:
            store.create(a_record(state=state))
    assert store.unsettled() == kept


def test_swap_keeps_every_field_and_counts_the_version(store: JobStore) -> None:
    old = store.create(a_record())
    new = replace(
        old,
        state=State.BLOCKED,
        reason="DATA_LOSS",
        message="gone",
        incarnation=3,
        has_actors=True,
        failures=2,
        furthest_plan=99,
        cursor=7,
        accept_code_change=True,
        allow_gap=True,
        updated_at_s=4.5,
        status=JobStatus(
            loss=float("inf"),
            scores={"auroc": 0.5},
            partitions=(PartitionStatus("t:0", 1, 2, 3),),
            members=(Member("trainer", 0, 1, 42, "here", "ready"),),
        ),
    )
    assert store.swap(old, new) == replace(new, version=2) == store.get(old.job_id)


def test_swap_of_an_old_version_changes_nothing(store: JobStore) -> None:
    old = store.create(a_record(), happened("QUEUED"))
    first = store.swap(old, replace(old, message="first"))
    assert store.swap(old, replace(old, message="second"), happened("second")) is None
    assert store.get(old.job_id) == first
    assert len(store.events(old.job_id, after=0, limit=10)) == 1


def test_events_are_numbered_without_gaps_and_read_in_parts(store: JobStore) -> None:
    record = store.create(a_record(), happened("1"))
    other = store.create(a_record(), happened("x", "y"))
    record = store.swap(record, record, happened("2", "3"))
    store.swap(record, record, happened("4"))
    found = store.events(record.job_id, after=1, limit=2)
    assert [(event.number, event.happening.message) for event in found] == [(2, "2"), (3, "3")]
    assert store.events(record.job_id, after=4, limit=2) == []
    assert len(store.events(other.job_id, after=0, limit=9)) == 2
