"""Attempts: how a coordinator's incarnation takes a job over, so that no other can write beside it.

It (1) claims the next fence, (2) voids every lower fence that has named no parent, (3) looks for the newest sound checkpoint
that counts, (4) names it as its parent. Each write is made if absent; a pause or a kill may fall between any two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import CorruptError, FencedError, NotFoundError
from dtrain.steplog.fences import ManifestRef


@dataclass(frozen=True, slots=True)
class Attempt:
    """A claimed attempt: its number, and the checkpoint that it begins from; None for the beginning of the job."""

    number: int
    parent: Manifest | None


def claim(store: CheckpointStore, *, incarnation: int, on_skip: Callable[[str], None]) -> Attempt:
    """The job belongs to a new attempt: nothing that an earlier one writes from now on beyond the parent counts.

    Args:
        store: the job's.
        incarnation: of the coordinator, as the control plane recorded it; a higher one wins.
        on_skip: is told, in one sentence, of each corrupt checkpoint that is passed over.

    Raises:
        FencedError: a higher incarnation, or a later attempt, owns the job.
        CorruptError: there are checkpoints and none is sound, or a fence cannot be believed. Training from zero would
            be wrong; a person must look.
        StateError: another dtrain wrote the newest checkpoint or something in its log: to pass over it would be to lose it.
        StorageError: something cannot be read or written now. Call again (that is another attempt).
    """
    number = _claim_fence(store, incarnation=incarnation)
    known = store.fences()
    for fence in known.values():
        if fence.attempt < number and not fence.is_named and not fence.is_void:
            store.void(fence.attempt)
    parent = _newest_sound(store, attempt=number, on_skip=on_skip)
    if parent is None and any(fence.parent for fence in known.values()):
        raise CorruptError(
            "the job has begun from a checkpoint before, and now there is none",
            fix="restore the job's folder; training from zero would lose what was trained",
        )
    if not store.name_parent(number, parent.ref if parent else None):
        raise FencedError(f"a later attempt has closed attempt {number}")
    return Attempt(number, parent)


def is_fenced(store: CheckpointStore, attempt: int) -> bool:
    """Whether a later attempt owns the job: to be asked after a manifest is durable and before any effect follows."""
    return bool(store.attempts(after=attempt))


def _claim_fence(store: CheckpointStore, *, incarnation: int) -> int:
    while True:
        known = store.fences()
        highest = max((fence.incarnation for fence in known.values()), default=0)
        if highest > incarnation:
            raise FencedError(f"incarnation {highest} owns the job; this one is {incarnation}")
        number = max(known, default=0) + 1
        if store.create_fence(number, incarnation=incarnation):
            return number


def _newest_sound(store: CheckpointStore, *, attempt: int, on_skip: Callable[[str], None]) -> Manifest | None:
    line = store.history()
    for ref in reversed(line):
        try:
            manifest = store.read_manifest(ref)
            store.verify(manifest, since=_before(store, line, ref))
        except (CorruptError, NotFoundError) as error:
            if is_fenced(store, attempt):  # not corrupt: its new owner has deleted what it does not keep
                raise FencedError(f"a later attempt has overtaken attempt {attempt}") from error
            on_skip(f"checkpoint {ref.name} is passed over: {error.reason}")
        else:
            return manifest
    if line:
        raise CorruptError(
            f"none of the job's {len(line)} checkpoints is sound",
            fix="restore the job's folder; training from zero would lose what was trained",
        )
    return None


def _before(store: CheckpointStore, line: Sequence[ManifestRef], ref: ManifestRef) -> Manifest | None:
    """The checkpoint before `ref`, if it can be read: what led to it was verified when it was a parent, or will be."""
    place = line.index(ref)
    return store.manifest_if_any(line[place - 1]) if place else None
