"""Fences: which attempt may write, and which manifests count (architecture: the protocol, attempts).

An attempt n claims `fence/n`, voids every lower fence that has named no parent, then names its own parent. A manifest counts only
if it is not later, by plan number, than the parent of *every* later fence: what an old attempt wrote after its successor had
chosen where to begin is not part of the job's history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_NAME = re.compile(r"p(\d{12,})-a(\d{8,})", re.ASCII)


class ManifestRef(NamedTuple):
    """A manifest by the attempt that wrote it and the plan number that it stands at."""

    attempt: int
    plan_number: int

    @property
    def name(self) -> str:
        """Its name in the store; sorts by plan number."""
        return f"p{self.plan_number:012d}-a{self.attempt:08d}"

    @classmethod
    def parse(cls, name: str) -> ManifestRef:
        """The reference that `name` wrote; ValueError when it is not one."""
        found = _NAME.fullmatch(name)
        if not found or cls(int(found[2]), int(found[1])).name != name:
            raise ValueError(name)
        return cls(int(found[2]), int(found[1]))


@dataclass(frozen=True, slots=True)
class Fence:
    """One attempt's claim.

    Args:
        attempt: its number, from 1.
        incarnation: of the coordinator that claimed it.
        is_named: whether its parent is known by now.
        is_void: it was closed by a later attempt before it named a parent: it bounds nothing, and its owner exits.
        parent: where it began; None for the beginning of the job.
    """

    attempt: int
    incarnation: int
    is_named: bool = False
    is_void: bool = False
    parent: ManifestRef | None = None


def counts(manifest: ManifestRef, fences: Iterable[Fence]) -> bool:
    """Whether `manifest` is part of the job's history, given all fences."""
    for fence in fences:
        if fence.attempt <= manifest.attempt or fence.is_void or not fence.is_named:
            continue
        if fence.parent is None or manifest.plan_number > fence.parent.plan_number:
            return False
    return True


def history(manifests: Iterable[ManifestRef], fences: Mapping[int, Fence]) -> list[ManifestRef]:
    """The manifests that count, oldest first."""
    known = list(fences.values())
    found = [manifest for manifest in manifests if counts(manifest, known)]
    return sorted(found, key=lambda m: (m.plan_number, m.attempt))
