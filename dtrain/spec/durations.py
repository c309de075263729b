"""Durations as people write them: `200ms`, `30s`, `10m`, `2h`; kept as seconds."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")


def parse_duration_s(value: object) -> float:
    """Seconds in `value`: a number of seconds, or a text as `200ms`.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    found = _PATTERN.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("not a duration: write a number and a unit (ms, s, m, h, d), as 200ms or 30s")
    return float(found[1]) * _UNITS_S[found[2]]


DurationS = Annotated[
    float,
    BeforeValidator(parse_duration_s),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"}, {"type": "number"}]}),
]
"""A duration in seconds; in a job file a text as `30s`, or a number of seconds."""
