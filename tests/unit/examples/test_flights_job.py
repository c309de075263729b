from __future__ import annotations

import json
from pathlib import Path

from dtrain.spec.load import load_job
from examples.flights import demo
from examples.flights.produce import end_offsets
from examples.flights.proof import JANUARY_STEPS

ENVIRONMENT = {"KAFKA_BOOTSTRAP": "localhost:9092", "DTRAIN_CHECKPOINTS": "/checkpoints"}


def test_job_file_is_valid_and_asks_for_as_many_workers_as_the_demo_waits_for() -> None:
    job = load_job(demo.ROOT / demo.JOB_FILE, environment=ENVIRONMENT)
    assert job.workers.min == job.workers.max == demo.NUM_WORKERS
    assert Path(job.code, "flights.py").is_file()


def test_job_file_takes_the_end_of_the_stream_from_the_demo() -> None:
    ends = end_offsets(336_776)
    job = load_job(demo.ROOT / demo.JOB_FILE, environment=ENVIRONMENT, overrides={"source.end": json.loads(json.dumps(ends))})
    assert job.source.end == ends


def test_frozen_steps_are_those_of_january() -> None:
    rows = load_job(demo.ROOT / demo.JOB_FILE, environment=ENVIRONMENT).batch.rows
    assert abs(JANUARY_STEPS * rows - 27_004) < rows


def test_demo_suspends_well_before_the_stream_can_end() -> None:
    rows = load_job(demo.ROOT / demo.JOB_FILE, environment=ENVIRONMENT).batch.rows
    assert demo.KILL_AT_STEP < demo.SUSPEND_AT_STEP < 0.6 * 336_776 / rows


def test_backfill_file_is_valid_and_takes_its_files_from_the_environment() -> None:
    job = load_job(demo.ROOT / "examples/flights/backfill.yaml", environment=ENVIRONMENT | {"FLIGHT_FILES": "/flights"})
    assert job.source.backfill is not None
    assert (job.source.backfill.files, job.source.backfill.file_format) == ("/flights/2013-*.parquet", "parquet")
