"""Admission: which queued jobs start now. One queue, first come first served, all of a job's resources or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtrain.job.protocols import Resources

BEHIND = "waits its turn: nobody overtakes the first in the queue, which waits for room"
"""Names nobody: who is first changes often, and each change of a message is a write."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job, and what it needs to start."""

    job_id: str
    need: Resources


@dataclass(frozen=True, slots=True)
class Admission:
    """What was decided: who starts, and for everybody else why not, in one sentence."""

    admitted: tuple[str, ...]
    pending: Mapping[str, str]


def admit(waiting: Sequence[Waiting], *, capacity: Resources, taken: Resources) -> Admission:
    """Who starts now: from the head of the queue on, until the first that does not fit; nobody overtakes it.

    Why nobody overtakes: a large job would wait for ever behind a stream of small ones.

    Args:
        waiting: in the order of the queue.
        capacity: of the whole cluster.
        taken: by jobs whose processes exist, or are about to.
    """
    admitted: list[str] = []
    pending: dict[str, str] = {}
    is_full = False
    free = Resources(cpus=capacity.cpus - taken.cpus, gpus=capacity.gpus - taken.gpus)
    for job in waiting:
        if is_full:
            pending[job.job_id] = BEHIND
        elif job.need.fits_in(free):
            admitted.append(job.job_id)
            free = Resources(cpus=free.cpus - job.need.cpus, gpus=free.gpus - job.need.gpus)
        else:
            is_full = True
            pending[job.job_id] = _why_not(job.need, capacity=capacity, free=free)
    return Admission(tuple(admitted), pending)


def _why_not(need: Resources, *, capacity: Resources, free: Resources) -> str:
    if not need.fits_in(capacity):
        return (
            f"needs {_said(need)}, but the whole cluster has {_said(capacity)}: "
            "cancel it and ask for less, or make the cluster larger; the jobs behind it wait too"
        )
    return f"waits for room: needs {_said(need)}, and {_said(free)} of {_said(capacity)} is free"


def _said(resources: Resources) -> str:
    cpus = f"{max(0.0, resources.cpus):g} CPUs"
    return f"{cpus} and {max(0.0, resources.gpus):g} GPUs" if resources.gpus > 0 else cpus
