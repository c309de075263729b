"""Verdicts: what an error makes of a job."""

from __future__ import annotations

from dtrain.errors import (
    BadRecordError,
    CorruptError,
    DataLossError,
    DriftError,
    DtrainError,
    FencedError,
    InputError,
    NonFiniteError,
    NotFoundError,
    StorageError,
    TaskError,
    UnavailableError,
)
from dtrain.job.status import Outcome

_BLOCKED: tuple[tuple[type[DtrainError], str], ...] = (
    (DataLossError, "DATA_LOSS"),
    (BadRecordError, "BAD_RECORDS"),
    (DriftError, "DRIFT"),
    (CorruptError, "CHECKPOINT_CORRUPT"),
    (StorageError, "STORAGE"),
    (NotFoundError, "NOT_FOUND"),
    (UnavailableError, "UNAVAILABLE"),
)
_FAILED: tuple[tuple[type[DtrainError], str], ...] = (
    (NonFiniteError, "NON_FINITE"),
    (TaskError, "TASK"),
    (InputError, "INPUT"),
)


def verdict_of(error: BaseException) -> tuple[Outcome, str]:
    """How an incarnation ends on `error`, and the reason as a word.

    BLOCKED is what a person can put right and resume from the last checkpoint; FAILED needs another job.
    """
    if isinstance(error, FencedError):
        return Outcome.NONE, "FENCED"  # a later attempt runs the job: this one has no say
    for kind, reason in _BLOCKED:
        if isinstance(error, kind):
            return Outcome.BLOCKED, reason
    for kind, reason in _FAILED:
        if isinstance(error, kind):
            return Outcome.FAILED, reason
    return Outcome.FAILED, "INTERNAL"
