"""Every metric of dtrain, in one place: name, unit, meaning, labels.

Names are `dtrain_<what>_<unit>[_total]` in base units. A job's metrics carry `job_id` (Prometheus owns `job`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Prometheus's types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: as Prometheus sees it.
        kind: its type.
        help: what it says, in one sentence.
        labels: besides `job_id` of a job's metrics.
        buckets: upper bounds of a histogram, in its unit.
        attribute: of a job's status, that gives the value; a mapping gives one value for each value of the one label.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    attribute: str = ""


_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LONG = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


def _counter(what: str, attribute: str, text: str) -> Metric:
    return Metric(f"dtrain_job_{what}", Kind.COUNTER, text, attribute=attribute)


def _gauge(what: str, attribute: str, text: str, *labels: str) -> Metric:
    return Metric(f"dtrain_job_{what}", Kind.GAUGE, text, labels, attribute=attribute)


BUILD_INFO = Metric("dtrain_build_info", Kind.GAUGE, "1, with the version of dtrain as a label.", ("version",))

JOB_STATUS = (
    _counter("rows_trained_total", "rows_trained", "Rows in the weights; falls when a job goes back to a checkpoint."),
    _counter("rows_rejected_total", "rows_rejected", "Rows that could not be decoded, each listed by coordinate in the log."),
    Metric(
        "dtrain_job_rejects_total",
        Kind.COUNTER,
        "The same rows by kind: value, missing, null, shape, type, range, other.",
        ("kind",),
        attribute="rejects",
    ),
    _counter(
        "rows_skipped_total", "rows_skipped", "Rows of steps that were left out because a loss or gradient was not finite."
    ),
    _counter("rows_filtered_total", "rows_filtered", "Rows that `source.filter` has left out."),
    _counter("rows_duplicate_total", "rows_duplicate", "Rows left out because their key was seen shortly before."),
    _counter("rows_held_out_total", "rows_held_out", "Rows that are never trained and only scored."),
    _counter(
        "offsets_skipped_total", "offsets_skipped", "Offsets that were passed over because their records were lost or shed."
    ),
    _counter("steps_total", "step", "Optimizer updates in the weights; falls when a job goes back to a checkpoint."),
    _counter("recoveries_total", "num_recoveries", "Losses that the job came back from."),
    _gauge("loss", "loss", "Mean prequential loss a row over the window."),
    _gauge("score", "scores", "Prequential score over the window, by metric.", "metric"),
    _gauge("held_out_loss", "held_out_loss", "Mean loss a row over the window of held-out rows."),
    _gauge("held_out_score", "held_out_scores", "Score over the window of held-out rows, by metric.", "metric"),
    _gauge("lag_rows", "lag_rows", "Rows that can be read and are not trained yet: an estimate."),
    _gauge("lag_seconds", "lag_s", "Age of the newest trained row when rows wait, else 0."),
    _gauge("freshness_seconds", "freshness_s", "Now less the timestamp of the newest row in the weights."),
    _gauge("world_size", "world_size", "Trainers in the data-parallel group."),
    _gauge("generation", "generation", "Number of the present membership of the group."),
    _gauge("attempt", "attempt", "Number of the present incarnation in the checkpoint store."),
    _gauge("last_checkpoint_timestamp_seconds", "last_checkpoint_at_s", "When the newest checkpoint became durable; 0 before."),
)
"""Set from a job's status."""

JOB_STEP = Metric("dtrain_job_step_seconds", Kind.HISTOGRAM, "Time from one applied step to the next.", buckets=_SHORT)
JOB_RECOVERY = Metric(
    "dtrain_job_recovery_seconds", Kind.HISTOGRAM, "Time from noticing a loss to the next applied step.", buckets=_LONG
)
JOB_CHECKPOINT = Metric(
    "dtrain_job_checkpoint_seconds",
    Kind.HISTOGRAM,
    "Time from a checkpoint's control step to its durable manifest.",
    buckets=_LONG,
)

JOBS = Metric("dtrain_jobs", Kind.GAUGE, "Jobs that are not over, by state.", ("state",))
CYCLE = Metric("dtrain_scheduler_cycle_seconds", Kind.HISTOGRAM, "Time of one cycle of the scheduler.", buckets=_SHORT)
RPCS = Metric("dtrain_rpc_requests_total", Kind.COUNTER, "Calls that ended, by method and status code.", ("method", "code"))

CATALOGUE = (BUILD_INFO, *JOB_STATUS, JOB_STEP, JOB_RECOVERY, JOB_CHECKPOINT, JOBS, CYCLE, RPCS)
"""All of them."""
