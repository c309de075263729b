"""Segments: sealed, immutable pieces of the step log; one per checkpoint, and merged in tiers.

A segment's bytes are JSON lines, one entry a line, so that anybody can read them; its name is the digest of those bytes. Ten segments
of a tier become one of the next: small ones are joined, larger ones listed in an index, a segment whose lines are names of segments.
So a log of n checkpoints is named by about 10 log n segments, and no byte of it is written again more than a few times.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from dtrain.errors import CorruptError
from dtrain.steplog.entries import Entry, canonical

Line = TypeVar("Line")

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
FANOUT = 10
JOINED_BYTES = 4 * 2**20
"""Segments that are larger together are listed in an index: what is joined is read and written at a checkpoint."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The name of a sealed segment and what it holds: entries `first` to `last`, both included.

    Args:
        sha256: of its bytes.
        first: its first entry.
        last: its last one.
        num_bytes: of itself; an index does not count what it lists.
        tier: how many times segments were merged to make it.
        is_index: whether its lines are names of segments, not entries.
    """

    sha256: str
    first: int
    last: int
    num_bytes: int
    tier: int = 0
    is_index: bool = False

    def to_json(self) -> dict[str, Any]:
        """The segment's name as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Segment:
        """The name that `to_json` wrote; ValueError where its digest is none: a file is named by it."""
        check_digest(value["sha256"])
        return cls(**value)


def check_digest(sha256: object) -> None:
    """Raise ValueError unless it is a sha256 in hex."""
    if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
        raise ValueError("not a sha256")


def seal(entries: Sequence[Entry]) -> tuple[Segment, bytes]:
    """The segment of `entries` (>= 1, consecutive) and its bytes."""
    content = b"".join(canonical(entry.to_json()) + b"\n" for entry in entries)
    name = Segment(hashlib.sha256(content).hexdigest(), entries[0].number, entries[-1].number, len(content))
    return name, content


def unseal(segment: Segment, content: bytes, *, after: int = 0) -> list[Entry]:
    """The entries of a segment, verified; only those with a number above `after`.

    Raises:
        CorruptError: the bytes are not those that were sealed, or not the entries that its name says.
    """
    skip = max(0, after + 1 - segment.first)
    entries = _read(segment, content, Entry.from_json, skip=skip)
    is_whole = segment.first > 0 and content.count(b"\n") == segment.last - segment.first + 1
    if not is_whole or [entry.number for entry in entries] != list(range(segment.first + skip, segment.last + 1)):
        raise CorruptError(f"log segment {segment.sha256[:12]} does not hold entries {segment.first} to {segment.last}")
    return entries


def listed(segment: Segment, content: bytes) -> list[Segment]:
    """The segments that an index lists, verified.

    Raises:
        CorruptError: the bytes are not those that were sealed, or the segments do not tile it.
    """
    found = _read(segment, content, Segment.from_json)
    check_tiling(found, first=segment.first, last=segment.last)
    return found


def check_tiling(line: Iterable[Segment], *, first: int, last: int) -> None:
    """Segments follow each other from entry `first` to `last`.

    Raises:
        CorruptError: they do not.
    """
    for segment in line:
        if segment.first != first or segment.last < first:
            raise CorruptError(f"log segment {segment.sha256[:12]} does not follow entry {first - 1}")
        first = segment.last + 1
    if first != last + 1:
        raise CorruptError(f"the log ends at entry {first - 1}, not at {last}")


def ripe(line: Sequence[Segment]) -> slice:
    """Where in `line` the oldest `FANOUT` segments of one tier stand, which are to be merged next; an empty slice for nowhere."""
    for start in range(len(line) - FANOUT + 1):
        if line[start].tier == line[start + FANOUT - 1].tier:
            return slice(start, start + FANOUT)
    return slice(0, 0)


def is_joined(group: Sequence[Segment]) -> bool:
    """Whether segments are merged by joining their bytes; else by an index."""
    return sum(s.num_bytes for s in group) <= JOINED_BYTES and not any(s.is_index for s in group)


def merge(group: Sequence[Segment], contents: Sequence[bytes]) -> tuple[Segment, bytes]:
    """One segment of the next tier in the place of `group`, and its bytes.

    Args:
        group: consecutive, of one tier.
        contents: verified, where they are to be joined; none for an index.
    """
    content = b"".join(contents or [canonical(segment.to_json()) + b"\n" for segment in group])
    digest, tier = hashlib.sha256(content).hexdigest(), group[0].tier + 1
    return Segment(digest, group[0].first, group[-1].last, len(content), tier, is_index=not contents), content


def _read(segment: Segment, content: bytes, parse: Callable[[dict[str, Any]], Line], *, skip: int = 0) -> list[Line]:
    """The lines of a segment, verified, without the first `skip`."""
    if hashlib.sha256(content).hexdigest() != segment.sha256:
        raise CorruptError(f"log segment {segment.sha256[:12]} does not match its digest")
    try:
        return [parse(json.loads(line)) for line in content.splitlines()[skip:]]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CorruptError(f"log segment {segment.sha256[:12]} does not hold what its name says") from error
