"""Segments: sealed, immutable pieces of the step log, one per checkpoint.

A segment's bytes are JSON lines, one entry a line, so that anybody can read them; its name is the digest of those bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dtrain.errors import CorruptError
from dtrain.steplog.entries import Entry, canonical, extend_hash


@dataclass(frozen=True, slots=True)
class Segment:
    """The name of a sealed segment and what it holds: entries `first` to `last`, both included."""

    sha256: str
    first: int
    last: int
    num_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The segment's name as JSON."""
        return {"sha256": self.sha256, "first": self.first, "last": self.last, "num_bytes": self.num_bytes}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Segment:
        """The name that `to_json` wrote."""
        return cls(**value)


def seal(entries: Sequence[Entry]) -> tuple[Segment, bytes]:
    """The segment of `entries` (>= 1, consecutive) and its bytes."""
    content = b"".join(canonical(entry.to_json()) + b"\n" for entry in entries)
    name = Segment(hashlib.sha256(content).hexdigest(), entries[0].number, entries[-1].number, len(content))
    return name, content


def unseal(segment: Segment, content: bytes) -> list[Entry]:
    """The entries of a segment, verified.

    Raises:
        CorruptError: the bytes are not those that were sealed, or not the entries that its name says.
    """
    if hashlib.sha256(content).hexdigest() != segment.sha256:
        raise CorruptError(f"log segment {segment.sha256[:12]} does not match its digest")
    try:
        entries = [Entry.from_json(json.loads(line)) for line in content.splitlines()]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CorruptError(f"log segment {segment.sha256[:12]} does not hold entries") from error
    if [entry.number for entry in entries] != list(range(segment.first, segment.last + 1)):
        raise CorruptError(f"log segment {segment.sha256[:12]} does not hold entries {segment.first} to {segment.last}")
    return entries


def hash_of(running: str, entries: Iterable[Entry]) -> str:
    """The running hash after all of `entries`."""
    for entry in entries:
        running = extend_hash(running, entry)
    return running
