"""The examples, each over a topic in memory: a job in one process beside a plain PyTorch loop over the same rows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from dtrain.job.status import Outcome
from dtrain.local import run
from dtrain.stream.memory import MemorySource, MemoryTopic
from examples.comparison import Comparison, compare
from examples.example import NAMES, Example
from examples.messages import of_rows
from examples.result import TOLERANCE
from examples.stage import Stage
from examples.trial import ONE_SLICE

STEPS = {"digits": 100, "reviews": 30, "movielens": 60, "weather": 30}
"""Fewer of the slower ones: the runner compares 100 of each."""


@cache
def example(name: str) -> Example:
    return Example.load(name)


def trained(name: str, folder: Path, **overrides: object) -> Comparison:
    stage = Stage(folder, "nowhere:1", topic=name)
    step_rows = example(name).job(stage).batch.rows
    messages = list(of_rows(example(name).messages(), start=0, stop=STEPS[name] * step_rows))
    topic = MemoryTopic(name, partitions=example(name).num_partitions)
    ends = dict.fromkeys(range(example(name).num_partitions), 0)
    for message in messages:
        topic.append(message.value, partition=message.partition, key=message.key)
        ends[message.partition] += 1
    job = example(name).job(stage, source__end=ends, checkpoint__every="1h", **overrides)
    source = MemorySource(job.source, {name: topic})
    end = run(job, folder=folder, on_status=lambda *_: None, should_stop=lambda: False, source=source)
    assert end.outcome is Outcome.SUCCEEDED, end
    return compare(example(name), job, str(folder), messages)


@pytest.mark.parametrize("name", NAMES)
def test_exact_job_of_one_slice_has_the_plain_loops_weights_to_the_bit(name: str, tmp_path: Path) -> None:
    found = trained(name, tmp_path, **ONE_SLICE)
    assert found.is_equal
    assert found.is_once


@pytest.mark.parametrize("name", NAMES)
def test_fast_job_has_the_plain_loops_weights_within_1e_6(name: str, tmp_path: Path) -> None:
    found = trained(name, tmp_path, workers={"max": 1})
    assert found.differences.keys() == {STEPS[name]}
    assert found.differences[STEPS[name]] <= TOLERANCE
