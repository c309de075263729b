"""`lag`: what of its topic a job has not trained yet: where it stands, as it says, beside what the broker says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dtrain.cli import home
from dtrain.cli.output import Form, Output, emit
from dtrain.cli.words import JobName
from dtrain.errors import StateError

if TYPE_CHECKING:
    from dtrain.job.view import Job
    from dtrain.spec.job import SourceSpec


def lag(job: JobName, output: Output = Form.TABLE) -> None:
    """Show how far a job is behind its topic, partition by partition."""
    from dtrain.cli.topic_screen import lag_screen
    from dtrain.spec.job import JobSpec

    with home.client() as client:
        found = client.get(job)
    if not found.status.partitions:
        state = f"{found.state.value}({found.reason})" if found.reason else found.state.value
        raise StateError(f"{found.job_id} is {state} and has read nothing yet", fix=f"see: dtrain get {found.job_id}")
    source = JobSpec.from_json(found.spec_json).source
    if not source.has_topics:
        raise StateError(f"{found.job_id} reads files alone, which do not grow", fix=f"see: dtrain get {found.job_id}")
    value = _value(found, source)
    emit(value, output, table=lambda: lag_screen(value), name=found.job_id)


def _value(job: Job, source: SourceSpec) -> dict[str, Any]:
    """The lag as JSON's types."""
    from dtrain.clock import SystemClock
    from dtrain.steplog.positions import Partition, Position
    from dtrain.stream.kafka import KafkaLog
    from dtrain.stream.lag import lags

    positions = {Partition.parse(each.partition): Position(each.offset, each.row) for each in job.status.partitions}
    log = KafkaLog(source, clock=SystemClock())
    try:
        found = lags(log, positions, clock=SystemClock())
    finally:
        log.close()
    ages = [each.age_s for each in found if each.age_s is not None]
    return {
        "job_id": job.job_id,
        "state": job.state.value,
        "group": f"dtrain-{job.job_id}",
        "status_age_s": max(0.0, time.time() - job.status.updated_at_s),
        "lag_offsets": sum(each.num_offsets for each in found),
        "lag_rows": sum(each.num_rows for each in found),
        "lag_s": max(ages, default=0.0),
        "partitions": [
            {
                "partition": str(each.partition),
                "offset": each.position.offset,
                "row": each.position.row,
                "begin": each.bounds.begin,
                "end": each.bounds.end,
                "lag_offsets": each.num_offsets,
                "lag_rows": each.num_rows,
                "lag_s": each.age_s,
                "lost_offsets": each.num_lost,
            }
            for each in found
        ],
    }
