from __future__ import annotations

import json
from dataclasses import replace

from dtrain.job.status import JobStatus, Member, PartitionStatus

FULL = JobStatus(
    step=7,
    loss=0.5,
    scores={"auroc": 0.75},
    partitions=(PartitionStatus("flights:0", offset=3, row=1, end_offset=9),),
    members=(Member("trainer", 0, 1, 4242, "here", "training"),),
)


def test_status_comes_back_from_json_as_it_was() -> None:
    assert JobStatus.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL


def test_status_of_a_later_version_is_read_without_what_is_not_known() -> None:
    assert JobStatus.from_dict({**FULL.to_dict(), "mood": "good"}) == FULL


def test_status_of_an_earlier_version_is_read_with_defaults() -> None:
    assert JobStatus.from_dict({"step": 7}) == replace(JobStatus(), step=7)
