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

from dtrain.errors import StateError
from dtrain.steplog.moves import Move
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.spans import Part


class StepKind(StrEnum):
    """What a plan asks for: a data step, or one of the control steps."""

    DATA = "data"
    CHECKPOINT = "checkpoint"
    MEMBERSHIP = "membership"
    MOVE = "move"


_KINDS = frozenset(StepKind)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the step `number` shall do.

    Args:
        number: place in the one order of data and control steps, from 1.
        kind: data or a control step.
        ranges: the rows, in the order taken; a control step may carry ranges whose every row is a reject.
        num_rows: rows trained, of all ranks; >= 1 for a data step, else 0.
        skipped: why the rows are not in the weights after all, as `non_finite`; only an entry has it, or a plan that follows one.
        moves: positions that a control step sets.
        topics: (topic, id) of those that it makes known, by name.
        part: of a span, where rows are shuffled: only its first part carries ranges, those of all of the span.
    """

    number: int
    kind: StepKind
    ranges: tuple[RowRange, ...] = ()
    num_rows: int = 0
    skipped: str = ""
    moves: tuple[Move, ...] = ()
    topics: tuple[tuple[str, str], ...] = ()
    part: Part | None = None

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON; entries are written so."""
        ranges = [item.to_json() for item in self.ranges]
        value = {"n": self.number, "kind": self.kind.value, "rows": self.num_rows, "ranges": ranges}
        moves = [move.to_json() for move in self.moves]
        part = self.part.to_json() if self.part is not None else None
        seldom = {"skipped": self.skipped, "moves": moves, "topics": dict(self.topics), "part": part}
        return value | {name: it for name, it in seldom.items() if it}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote.

        Raises:
            StateError: another dtrain wrote it: it is of a kind that this one does not know.
        """
        if isinstance(value["kind"], str) and value["kind"] not in _KINDS:
            raise StateError(
                f"log entry {value['n']} was written by another dtrain, as a {value['kind'][:80]!r} step", fix="use that one"
            )
        ranges = tuple(RowRange.from_json(item) for item in value["ranges"])
        return cls(
            number=value["n"],
            kind=StepKind(value["kind"]),
            ranges=ranges,
            num_rows=value["rows"],
            skipped=value.get("skipped", ""),
            moves=tuple(map(Move.from_json, value.get("moves", ()))),
            topics=tuple(sorted(value.get("topics", {}).items())),
            part=Part.from_json(value["part"]) if "part" in value else None,
        )


Entry = Plan
"""An applied plan. Every replica appends it to its own log tail in the block that moves its weights."""

GENESIS = "0" * 64
"""The running hash before the first entry."""


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def canonical(value: object) -> bytes:
    """JSON with one spelling: sorted keys, no spaces, ASCII. What digests are taken of.

    ASCII, because a reason may quote half a character of a bad record, which UTF-8 cannot hold.
    """
    return _CANONICAL.encode(value).encode()


def extend_hash(running: str, entry: Entry) -> str:
    """The running hash after `entry`: sha256 over the hash so far and the entry, in hex."""
    return hashlib.sha256(running.encode() + canonical(entry.to_json())).hexdigest()
