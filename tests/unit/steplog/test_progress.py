import json
from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given

from dtrain.errors import InternalError
from dtrain.steplog.entries import GENESIS, Entry, StepKind, extend_hash
from dtrain.steplog.progress import Progress
from dtrain.steplog.segments import seal
from tests.support.steplogs import RUN, Run


def reached(run: Run) -> Progress:
    progress = Progress(positions=run.start)
    for entry in run.entries:
        progress = progress.apply(entry)
    return progress


@given(RUN)
def test_progress_is_the_sum_of_its_entries(run: Run) -> None:
    progress = reached(run)
    ranges = [item for entry in run.entries for item in entry.ranges]
    assert progress.plan_number == len(run.entries)
    assert progress.step == sum(entry.kind is StepKind.DATA for entry in run.entries)
    assert progress.rows_trained == sum(entry.num_rows for entry in run.entries if not entry.skipped)
    assert progress.rows_skipped == sum(entry.num_rows for entry in run.entries if entry.skipped)
    assert progress.rows_rejected == sum(len(item.rejects) for item in ranges)
    assert progress.log_hash == reduce(extend_hash, run.entries, GENESIS)
    assert progress.positions == {**run.start, **{item.partition: item.end for item in ranges}}
    assert progress.marks == {r.partition: (r.last_offset, r.last_crc) for r in ranges if r.last_offset >= 0}


@given(RUN)
def test_progress_read_is_what_was_written(run: Run) -> None:
    progress = reached(run)
    if run.entries:
        progress = progress.seal(seal(run.entries)[0])
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


@given(RUN)
def test_apply_leaves_the_progress_that_it_was_given(run: Run) -> None:
    before = Progress(positions=run.start)
    written = before.to_json()
    for entry in run.entries[:1]:
        before.apply(entry)
    assert before.to_json() == written


@pytest.mark.parametrize("number", [0, 1, 3])
def test_apply_of_an_entry_that_is_not_the_next_is_refused(number: int) -> None:
    progress = Progress().apply(Entry(1, StepKind.CHECKPOINT))
    with pytest.raises(InternalError, match="at 1"):
        progress.apply(Entry(number, StepKind.CHECKPOINT))


@given(RUN)
def test_segments_tile_the_log(run: Run) -> None:
    progress = reached(run)
    for index, entry in enumerate(run.entries):
        segment = seal([entry])[0]
        for bad in (replace(segment, first=index + 2), replace(segment, last=len(run.entries) + 1)):
            with pytest.raises(InternalError):
                progress.seal(bad)
        progress = progress.seal(segment)
    assert [s.first for s in progress.segments] == list(range(1, len(run.entries) + 1))
