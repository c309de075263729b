"""Durations and moments as people write them: `200ms`, `30s`, `2013-06-01T00:00:00Z`."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$", re.ASCII)


def problem(reason: str, *, fix: str, path: str = "") -> PydanticCustomError:
    """What a validator raises; `path` when the trouble is at another field than the validator's."""
    return PydanticCustomError("problem", "{path}{reason}; {fix}", {"reason": reason, "fix": fix, "path": path})


def parse_duration_s(value: object) -> float:
    """Seconds in `value`: a number of seconds, or a text as `200ms`.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _PATTERN.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("is not a duration; write a number and a unit (ms, s, m, h, d), as 200ms or 30s")
    return float(found[1]) * _UNITS_S[found[2]]


def _parse_moment(value: object) -> object:
    """The time in `value`. Numbers are refused: pydantic would take them for seconds since 1970."""
    if isinstance(value, datetime):
        return value
    if not (isinstance(value, str) and re.match(r"\d{4}-\d\d", value)):
        raise ValueError("is not a time; write it as 2013-06-01T00:00:00Z")
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is not None:
            return moment
    raise problem(f"{value[:40]!r} is not a time with its zone", fix="write it as 2013-06-01T00:00:00Z")


DurationS = Annotated[
    float,
    BeforeValidator(parse_duration_s),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$", "title": "a duration, as 200ms or 30s"},
                {"type": "number", "title": "a number of seconds"},
            ]
        }
    ),
]
"""A duration in seconds; in a job file a text as `30s`, or a number of seconds."""

Moment = Annotated[AwareDatetime, BeforeValidator(_parse_moment)]
"""A time with its zone, as `2013-06-01T00:00:00Z`."""
