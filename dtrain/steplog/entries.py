"""Plans and entries: what a coming step shall do, and what a step did.

A plan is volatile; an entry exists when a replica has applied it. Data steps and control steps share one plan number. Neither
names ranks: who computed a step is not part of what it did.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dtrain.steplog.ranges import RowRange


class StepKind(StrEnum):
    """What a plan asks for: a data step, or one of the control steps."""

    DATA = "data"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the step `number` shall do.

    Args:
        number: place in the one order of data and control steps, from 1.
        kind: data or a control step.
        ranges: the rows, in the order taken; a control step may carry ranges whose every row is a reject.
        num_rows: rows trained, of all ranks; >= 1 for a data step, else 0.
    """

    number: int
    kind: StepKind
    ranges: tuple[RowRange, ...] = ()
    num_rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON; entries are written so."""
        ranges = [item.to_json() for item in self.ranges]
        return {"n": self.number, "kind": self.kind.value, "rows": self.num_rows, "ranges": ranges}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        ranges = tuple(RowRange.from_json(item) for item in value["ranges"])
        return cls(number=value["n"], kind=StepKind(value["kind"]), ranges=ranges, num_rows=value["rows"])


Entry = Plan
"""An applied plan. Every replica appends it to its own log tail in the block that moves its weights."""

GENESIS = "0" * 64
"""The running hash before the first entry."""


def canonical(value: object) -> bytes:
    """JSON with one spelling: sorted keys, no spaces, ASCII. What digests are taken of.

    ASCII, because a reason may quote half a character of a bad record, which UTF-8 cannot hold.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def extend_hash(running: str, entry: Entry) -> str:
    """The running hash after `entry`: sha256 over the hash so far and the entry, in hex."""
    return hashlib.sha256(running.encode() + canonical(entry.to_json())).hexdigest()
