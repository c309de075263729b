"""Schemas that a registry has not, and how long each may be one that it has not yet.

A producer registers a schema and then writes by it, but the registry that a reader asks may be a replica that is behind, or one that
is being restored. And what was once called bad stays bad: the step log says so.
"""

from __future__ import annotations

from dataclasses import dataclass

ASK_AGAIN_S = 10.0
"""How long a registry is not asked again for a schema that was waited for in vain."""

MOST = 10_000
"""More than there are records between two that are given out: none of them is forgotten, and waited for anew, while others are."""

_NO_SCHEMA = "the registry has no schema"


def no_schema(schema_id: int) -> str:
    """What to say of an id that the registry does not know."""
    return f"{_NO_SCHEMA} {schema_id}"


def may_pass(reason: str) -> bool:
    """Whether a record that was bad for this reason may be a good one by now."""
    return reason.startswith(_NO_SCHEMA)


@dataclass(slots=True)
class _Missing:
    first_s: float
    last_s: float


class MissingSchemas:
    """Ids that were asked for in vain.

    Args:
        wait_s: for so long, from the first time on, the next answer may be another one.
    """

    def __init__(self, *, wait_s: float) -> None:
        self._wait_s = wait_s
        self._known: dict[int, _Missing] = {}

    def missed(self, schema_id: int, *, now_s: float) -> bool:
        """It was asked for in vain, now; whether it is still to be waited for."""
        missing = self._known.setdefault(schema_id, _Missing(now_s, now_s))
        missing.last_s = now_s
        if len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        return now_s - missing.first_s < self._wait_s

    def is_given_up(self, schema_id: int, *, now_s: float) -> bool:
        """Whether it was waited for in vain, and asked for only just now."""
        missing = self._known.get(schema_id)
        return missing is not None and missing.last_s - missing.first_s >= self._wait_s and now_s - missing.last_s < ASK_AGAIN_S
