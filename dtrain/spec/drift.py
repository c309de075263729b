"""Drift: what of a job file may be another one when a job goes on, because it settles nothing that the step log does not say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dtrain.spec.job import JobSpec

_MAY_CHANGE = (
    "name",
    "code",  # its digest is compared, wherever it lies
    "requirements",  # that of what they led to is
    "queue",
    "workers",
    "checkpoint",
    "batch.max_wait",
    "source.bootstrap",
    "source.security",
    "source.engine",
    "source.readers",
    "source.align",
    "source.on_lag",
    "source.on_bad_record",  # but see below
    "source.format.registry",
    "train.on_non_finite",
    "train.early_stop",
    "train.check_every",
)
"""Fields, those in them included. What is passed over, rejected or skipped is in the log."""


def differing(then: JobSpec, now: JobSpec) -> list[str]:
    """What of `now` is not as it was, as `train.seed: 3 then, 4 now`: steps that were trained before would come out otherwise, or
    what it says would be ignored, because it was settled when the job began.
    """
    before, present = dict(_fields(then)), dict(_fields(now))
    names = sorted(name for name in before.keys() | present.keys() if before.get(name) != present.get(name))
    return [f"{name}: {before.get(name, 'nothing')!s:.60} then, {present.get(name, 'nothing')!s:.60} now" for name in names]


def _fields(spec: JobSpec) -> Iterator[tuple[str, Any]]:
    """By dotted name, the fields that may not change."""
    yield "source.on_bad_record.window", spec.source.reject_window
    yield from _leaves("", spec.model_dump(mode="json"))


def _leaves(prefix: str, section: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        path = f"{prefix}{name}"
        if path in _MAY_CHANGE:
            continue
        if isinstance(value, dict):
            yield from _leaves(f"{path}.", value)
        else:
            yield path, value
