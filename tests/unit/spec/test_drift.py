"""What of a job file may change when its job goes on."""

from __future__ import annotations

from typing import Any

import pytest

from dtrain.spec.drift import differing
from dtrain.spec.job import JobSpec

LETTERS = {"send_to": "bad", "budget": 0.1}


def job(**changes: Any) -> JobSpec:
    spec: dict[str, Any] = {
        "name": "a",
        "task": "task:Task",
        "params": {"lr": 0.1},
        "source": {"topic": "t", "bootstrap": "one:9092"},
        "checkpoint": {"to": "/one"},
    }
    for name, change in changes.items():
        spec[name] = {**spec.get(name, {}), **change} if isinstance(change, dict) else change
    return JobSpec.model_validate(spec)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"name": "b"},
        {"code": "/elsewhere"},
        {"requirements": ["einops"]},
        {"workers": {"max": 4, "cpus": 2, "spares": 1}},
        {"checkpoint": {"to": "/two", "every": 5, "keep": 9}},
        {"batch": {"max_wait": 1}},
        {"source": {"bootstrap": "two:9092", "engine": "librdkafka", "readers": 3, "align": 5}},
        {"source": {"on_bad_record": LETTERS}},
        {"train": {"check_every": 7, "on_non_finite": "skip", "early_stop": {"patience_rows": 5}}},
    ],
)
def test_what_settles_nothing_may_change(changes: dict[str, Any]) -> None:
    assert differing(job(), job(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"params": {"lr": 0.2}}, "params.lr: 0.1 then, 0.2 now"),
        ({"params": {"wd": 1}}, "params.wd: nothing then, 1 now"),
        ({"task": "task:Other"}, "task: task:Task then, task:Other now"),
        ({"batch": {"num_slices": 4}}, "batch.num_slices: 8 then, 4 now"),
        ({"batch": {"rows": 4}}, "batch.rows: 512 then, 4 now"),
        ({"source": {"start": "earliest"}}, "source.start: latest then, earliest now"),
        ({"source": {"end": "latest"}}, "source.end: never then, latest now"),
        ({"source": {"on_bad_record": {**LETTERS, "window": 5000}}}, "source.on_bad_record.window: 100000 then, 5000 now"),
        ({"train": {"seed": 3}}, "train.seed: 0 then, 3 now"),
        ({"train": {"schedule": {"name": "constant"}}}, "train.schedule: task then, nothing now"),
        ({"transform": {"filter": "x > 1"}}, "transform.filter: "),
        ({"evaluate": {"held_out": 0.1}}, "evaluate.held_out: 0.0 then, 0.1 now"),
    ],
)
def test_what_settles_something_is_named_with_both_values(changes: dict[str, Any], words: str) -> None:
    found = differing(job(), job(**changes))
    assert any(text.startswith(words) for text in found), found
