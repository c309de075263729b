"""What is checked when the job is over, from its files and its topic; and a frozen model to compare it with."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from dtrain.job.status import JobStatus
from dtrain.job.view import Job
from examples.flights.count import Count, count, ranges_of, read_topic
from examples.flights.data import flights, month_starts
from examples.flights.figures import Check, Figures
from examples.flights.report import milliseconds
from examples.flights.show import Show
from examples.flights.timeline import sample
from examples.stage import Stage

JANUARY_STEPS = 53
"""Full steps that hold January's 27,004 flights."""
CLI = "dtrain.cli.main"


def prove(stage: Stage, show: Show, *, job_file: str, own: Sequence[str], began_s: float) -> Figures:
    """Count, replay, and train the frozen model; `own` are this run's values of the job file's fields, as options."""
    job = show.job
    replay = stage.command(CLI, "replay", job.job_id, "-o", "json")
    frozen = stage.command(CLI, "local", job_file, *own, *_frozen(), "-o", "json")
    with replay as replaying, frozen as freezing:
        counted = _count(stage, job)
        verdict = replaying.finish(timeout_s=180)[-1]
        statuses = freezing.finish(timeout_s=180)
    for line in statuses:
        status = JobStatus.from_dict(line)
        show.timeline.frozen.append(sample(status, at_s=status.updated_at_s, state="", produced=show.produced))
    late = float(flights()["late"].to_numpy().mean())
    return Figures(
        produced=show.produced,
        trained=counted.trained,
        lost=counted.lost + show.produced - counted.in_topic,
        doubled=counted.doubled,
        auroc=job.status.total_scores["auroc"],
        auroc_constant=0.5,
        auroc_frozen=statuses[-1]["total_scores"]["auroc"],
        recovery_s=show.recovery_s or math.nan,
        replay="equal" if verdict["is_equal"] else f"differs at {verdict['first_difference']}",
        loss=job.status.total_loss or math.nan,
        loss_frozen=statuses[-1]["total_loss"],
        loss_constant=-late * math.log(late) - (1 - late) * math.log(1 - late),
        late_share=late,
        month_starts=month_starts(),
        seconds=time.monotonic() - began_s,
        checks=list(_checks(counted, verdict, show)),
        setting=_setting(job),
    )


def _frozen() -> list[str]:
    """The same job in one process, without learning after January, and with the order of the schedule kept, for all rows are there."""
    values = {
        "name": "flight-delays-frozen",
        "params.freeze_after_steps": JANUARY_STEPS,
        "batch.order": "strict",
        "train.numerics": "fast",
        "checkpoint.every": "1h",
    }
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


def _count(stage: Stage, job: Job) -> Count:
    manifest = stage.checkpoints / job.job_id / "manifests" / f"{job.status.last_checkpoint}.json"
    return count(read_topic(stage.topic, bootstrap=stage.bootstrap), ranges_of(manifest))


def _checks(counted: Count, verdict: Mapping[str, Any], show: Show) -> Iterable[Check]:
    audit = verdict["audit"]
    yield Check(
        "Every flight is in the weights exactly once",
        "The step log of the last checkpoint names every row that was trained, by partition, offset and row. A plain consumer read the "
        "topic again and counted each named row by the number that the producer gave it; no code of dtrain took part.",
        f"{show.produced:,} produced, {counted.trained:,} trained, {counted.lost} lost, {counted.doubled} doubled",
        show.produced == counted.in_topic == counted.trained and counted.lost == counted.doubled == 0,
    )
    yield Check(
        "dtrain counts the same",
        "dtrain's own audit, which reads the topic again too, came to the same figures.",
        f"{audit['in_topic']:,} in the topic, {audit['trained']:,} trained, {audit['lost']} lost, {audit['doubled']} doubled",
        (audit["in_topic"], audit["trained"], audit["lost"], audit["doubled"])
        == (counted.in_topic, counted.trained, counted.lost, counted.doubled),
    )
    how = "bit for bit" if verdict["numerics"] == "exact" else f"within {verdict['difference']:.1e}"
    yield Check(
        "The weights are what the log says",
        f"One plain process, without Ray and with one rank instead of two, began with checkpoint {verdict['start']} and made every "
        "step again from topic and log.",
        f"equal {how} after {verdict['steps']:,} steps" if verdict["is_equal"] else f"differs at {verdict['first_difference']}",
        verdict["is_equal"],
    )
    yield Check(
        "Losing a worker costs a moment",
        "From noticing the loss to the next applied step, as the job reports it.",
        milliseconds(show.recovery_s),
        show.timeline.of("recovered") is not None and show.recovery_s is not None,
    )
    resumed = show.timeline.span("suspended", "resume")
    yield Check(
        "A pause loses nothing",
        "While the job was suspended the flights went on coming; afterwards they were all trained.",
        resumed[1].text.partition(": ")[2] if resumed else "not seen",
        resumed is not None,
    )


def _setting(job: Job) -> dict[str, str]:
    return {
        "job": job.job_id,
        "last checkpoint": job.status.last_checkpoint,
        "attempts, generations": f"{job.status.attempt}, {job.status.generation}",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("dtrain", "torch", "ray", "kafka-python")},
    }
