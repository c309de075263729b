"""Verdicts: what an error makes of a job."""

from __future__ import annotations

from dtrain.errors import (
    AuthError,
    BadRecordError,
    CorruptError,
    DataLossError,
    DivergenceError,
    DriftError,
    DtrainError,
    FencedError,
    InputError,
    NonFiniteError,
    NotFoundError,
    PoisonError,
    RequirementsError,
    StateError,
    StorageError,
    TaskError,
    UnavailableError,
)
from dtrain.job.status import Outcome

_TABLE: tuple[tuple[type[DtrainError], Outcome, str], ...] = (
    (DataLossError, Outcome.BLOCKED, "DATA_LOSS"),
    (BadRecordError, Outcome.BLOCKED, "BAD_RECORDS"),
    (DivergenceError, Outcome.BLOCKED, "DIVERGENCE"),
    (PoisonError, Outcome.BLOCKED, "POISON_STEP"),
    (DriftError, Outcome.BLOCKED, "DRIFT"),
    (CorruptError, Outcome.BLOCKED, "CORRUPT"),
    (StorageError, Outcome.BLOCKED, "STORAGE"),
    (NotFoundError, Outcome.BLOCKED, "NOT_FOUND"),
    (AuthError, Outcome.BLOCKED, "AUTH"),
    (UnavailableError, Outcome.BLOCKED, "UNAVAILABLE"),
    (NonFiniteError, Outcome.BLOCKED, "NON_FINITE"),
    (TaskError, Outcome.BLOCKED, "TASK"),
    (RequirementsError, Outcome.BLOCKED, "REQUIREMENTS"),
    (InputError, Outcome.FAILED, "INPUT"),
    (StateError, Outcome.BLOCKED, "STATE"),
)
"""The first that an error is counts."""


def verdict_of(error: BaseException) -> tuple[Outcome, str]:
    """How an incarnation ends on `error`, and the reason as a word.

    BLOCKED is what a person can put right and resume from the last checkpoint; FAILED needs another job.
    """
    if isinstance(error, FencedError):
        return Outcome.NONE, "FENCED"  # a later attempt runs the job: this one has no say
    for kind, outcome, reason in _TABLE:
        if isinstance(error, kind):
            return outcome, reason
    return Outcome.FAILED, "INTERNAL"
