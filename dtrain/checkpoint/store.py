"""The checkpoint store: one place a job that holds the truth.

    fences/n{attempt}.json           an attempt's claim                     made if absent
    fences/n{attempt}.parent.json    where it began, or that it is void     made if absent
    manifests/{manifest}.json        what makes a checkpoint of the rest    made if absent
    blobs/{sha256}.safetensors       tensors, by their digest
    segments/{sha256}.jsonl          sealed pieces of the step log, by their digest
    pins/{manifest}.json             that this checkpoint is not to be deleted
    locks/{sha256}.json              exact packages that requirements came to, by its digest
    requirements/{sha256}.json       which lock these requirements came to; made if absent

Blobs and segments first, the manifest last: a checkpoint can be read if and only if it is complete and its digests verify.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from dtrain.checkpoint.documents import read_document, write_document
from dtrain.checkpoint.files import Files
from dtrain.checkpoint.manifest import Blob, Manifest
from dtrain.checkpoint.segments import SegmentStore
from dtrain.errors import ConflictError, CorruptError, InternalError, NotFoundError
from dtrain.steplog import fences
from dtrain.steplog.fences import Fence, ManifestRef
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.segments import Segment
from dtrain.steplog.window import RejectWindow

_CLAIM = re.compile(r"n(\d{8,})\.json", re.ASCII)
ORPHAN_S = 7200.0
"""How long a file that no manifest names is left alone: somebody may be about to publish it."""


class CheckpointStore(SegmentStore):
    """Checkpoints of one job.

    Every method raises `StorageError` when a file cannot be read or written now; that never means that it is corrupt.

    Args:
        files: of this job alone.
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._settled: dict[int, Fence] = {}  # they never change again, and a job may have had many attempts
        self._swept_s = -math.inf

    # Blobs

    def put_blob(self, *parts: bytes | memoryview) -> Blob:
        """The blob is durable, and fresh: nobody collects it as garbage before its manifest can follow."""
        blob = Blob.of(parts)
        self.files.put(_blob_name(blob), *parts)
        return blob

    def read_blob(self, blob: Blob) -> bytes:
        """The bytes of `blob`. Raises `CorruptError` if they are missing or others."""
        content = self._read(_blob_name(blob))
        if hashlib.sha256(content).hexdigest() != blob.sha256 or len(content) != blob.num_bytes:
            raise CorruptError(f"blob {blob.sha256[:12]} does not match its digest")
        return content

    # Manifests

    def put_manifest(self, manifest: Manifest) -> None:
        """The checkpoint exists, durably. The same manifest again changes nothing.

        Raises:
            ConflictError: another manifest has this name.
        """
        name, content = _manifest_name(manifest.ref), write_document(manifest.to_json())
        if not self.files.create(name, content) and self.files.read(name) != content:
            raise ConflictError(f"another checkpoint {manifest.name} exists")

    def manifests(self) -> list[ManifestRef]:
        """Every manifest that is there, whether it counts or not, oldest first."""
        return sorted(self._manifest_times(), key=lambda ref: (ref.plan_number, ref.attempt))

    def read_manifest(self, ref: ManifestRef) -> Manifest:
        """The manifest `ref`; its blob and segments are not looked at.

        Raises:
            NotFoundError: there is none.
            CorruptError: it is not what was written.
            StateError: another dtrain wrote it.
        """
        what = f"checkpoint {ref.name}"
        value = read_document(self.files.read(_manifest_name(ref)), what=what)
        try:
            manifest = Manifest.from_json(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptError(f"{what} is not a manifest: {error}") from error
        if manifest.ref != ref:
            raise CorruptError(f"{what} holds another one")
        return manifest

    def manifest_if_any(self, ref: ManifestRef) -> Manifest | None:
        """The manifest `ref`, as `read_manifest`; None where it is corrupt, or not kept any more: it can never be loaded."""
        try:
            return self.read_manifest(ref)
        except (CorruptError, NotFoundError):
            return None

    def history(self) -> list[ManifestRef]:
        """The manifests that count, oldest first."""
        found = self.manifests()  # before the fences: one that is listed and passes them all did count at that moment
        return fences.history(found, self.fences())

    def find(self, name: str | None) -> Manifest:
        """The manifest with this name, or the newest that counts.

        Raises:
            NotFoundError: there is none.
            CorruptError: it is not what was written.
        """
        if name is None:
            line = self.history()
            if not line:
                raise NotFoundError("the job has no checkpoint yet")
            return self.read_manifest(line[-1])
        try:
            return self.read_manifest(ManifestRef.parse(name))
        except ValueError as error:
            raise NotFoundError(
                f"{name[:80]!r} is not a checkpoint's name", fix="list them with `dtrain checkpoints`"
            ) from error

    def verify(self, manifest: Manifest, *, since: Manifest | None = None) -> None:
        """The checkpoint is sound: blob and log are what was written, and the log leads to its progress.

        The log's ranges tile every partition, from where checkpoint 0 says that the job began (if that can still be read).

        Args:
            manifest: of the checkpoint.
            since: an older one of the same history, whose own log is believed: only what follows it is read. A job's whole log
                grows with its age, and a recovery must not.

        Raises:
            CorruptError: something is missing or other.
            NotFoundError: the checkpoint is not kept any more.
            StateError: another dtrain wrote something of it.
        """
        try:
            self._verify(manifest, since.progress if since is not None else None)
        except CorruptError as error:
            if manifest.ref in self._manifest_times():
                raise
            raise NotFoundError(f"checkpoint {manifest.name} is gone") from error

    def _verify(self, manifest: Manifest, since: Progress | None) -> None:
        if self._digest(_blob_name(manifest.blob)) != manifest.blob.sha256:
            raise CorruptError(f"blob {manifest.blob.sha256[:12]} of checkpoint {manifest.name} does not match its digest")
        begin = Progress(window=RejectWindow(manifest.progress.window.span_rows))  # its span is settled in checkpoint 0
        starts = self._replay(manifest.progress, since or begin)
        line = self.history() if since is None else []
        if line and line[0].plan_number == 0:
            genesis = self.manifest_if_any(line[0])
            if genesis is not None and dict(genesis.progress.positions) != starts:
                raise CorruptError(f"the log of checkpoint {manifest.name} does not begin where the job began")

    def _replay(self, progress: Progress, since: Progress) -> dict[Partition, Position]:
        """Where the log of `progress` begins; CorruptError if it does not lead there from `since`."""
        starts: dict[Partition, Position | None] = dict(since.positions)  # None: a partition that was added later
        reached = since
        for entry in self.entries(progress, after=since.plan_number):
            told: dict[Partition, Position | None] = {move.partition: move.start for move in entry.moves}
            told.update({item.partition: item.start for item in reversed(entry.ranges)})
            new = {p: at for p, at in told.items() if p not in starts}
            starts.update(new)
            begun = {p: at for p, at in new.items() if at is not None}
            if entry.part is None and entry.num_rows != sum(r.num_rows for r in entry.ranges):  # `apply` looks at parts
                raise CorruptError(f"log entry {entry.number} does not train the rows of its ranges")
            try:
                reached = replace(reached, positions={**reached.positions, **begun}).apply(entry)
            except InternalError as error:
                raise CorruptError(f"log entry {entry.number} does not follow: {error.reason}") from error
        untouched = {p: at for p, at in progress.positions.items() if p not in starts}
        if replace(reached, positions={**reached.positions, **untouched}, segments=progress.segments) != progress:
            raise CorruptError(f"the log up to entry {progress.plan_number} does not lead to the checkpoint's progress")
        return {**{p: at for p, at in starts.items() if at is not None}, **untouched}

    # Fences

    def attempts(self, *, after: int = 0) -> list[int]:
        """The numbers of all fences above `after`, rising. They have no gaps, so what a list does not show yet is asked for by name."""
        found = [int(match[1]) for match in map(_CLAIM.fullmatch, self.files.modified("fences")) if match]
        number = max([after, *found])
        while self._document_if_any(_fence_name(number + 1)) is not None:
            number += 1
            found.append(number)
        return sorted(number for number in found if number > after)

    def fences(self) -> dict[int, Fence]:
        """Every fence by its attempt. Raises `CorruptError` if one cannot be believed: nobody knows then what counts."""
        return {number: self._fence(number) for number in self.attempts()}

    def create_fence(self, attempt: int, *, incarnation: int) -> bool:
        """Fence `attempt` is claimed durably; whether by this call."""
        return self.files.create(_fence_name(attempt), write_document({"attempt": attempt, "incarnation": incarnation}))

    def name_parent(self, attempt: int, parent: ManifestRef | None) -> bool:
        """The parent of fence `attempt` is settled durably; whether it is `parent` and not void."""
        content = write_document({"parent": parent.name if parent else None})
        return self.files.create(_parent_name(attempt), content) or self.files.read(_parent_name(attempt)) == content

    def void(self, attempt: int) -> None:
        """Fence `attempt` is void, unless it has named its parent before."""
        self.files.create(_parent_name(attempt), write_document({"void": True}))

    # Keeping

    def pin(self, ref: ManifestRef) -> None:
        """Checkpoint `ref` is kept until it is unpinned, durably.

        Raises:
            NotFoundError: there is none, or it is not kept any more.
        """
        self.read_manifest(ref)
        self.files.create(_pin_name(ref), b"")
        try:
            self.read_manifest(ref)
        except NotFoundError:
            self.unpin(ref)
            raise

    def unpin(self, ref: ManifestRef) -> None:
        """Checkpoint `ref` is kept no longer than others."""
        self.files.delete(_pin_name(ref))

    def pins(self) -> set[ManifestRef]:
        """The checkpoints that are pinned."""
        return set(_refs(self.files.modified("pins")))

    def keep(self, number: int) -> list[ManifestRef]:
        """At most the newest `number` (>= 2) checkpoints that count are left, those pinned, and checkpoint 0: replay begins there.

        One whose manifest is corrupt or whose blob is gone is no reason to delete another. Manifests that do not count go once
        they are older than those kept; blobs, and segments that were joined into others, with the last manifest that needs them;
        blobs and segments to which no manifest leads, and unfinished files, when nobody has touched them for two hours. Only for
        the attempt that owns the job.

        Returns:
            The manifests that were deleted.
        """
        blobs = self.files.modified("blobs")  # before the manifests: a blob that is published meanwhile is seen as old here
        times = self._manifest_times()
        known = {ref: manifest for ref in times if (manifest := self.manifest_if_any(ref)) is not None}
        line = fences.history(times, self.fences())
        whole = [ref for ref in line if ref in known and _blob_file(known[ref].blob) in blobs]
        if not whole:
            return []
        oldest = whole[-max(number, 2) :][0]
        spared = self.pins() | {ref for ref in line[:1] if ref.plan_number == 0}
        doomed = sorted(ref for ref in times if ref.plan_number < oldest.plan_number and ref not in spared)
        for ref in doomed:
            self.files.delete(_manifest_name(ref), seen_s=times[ref])
        gone = sorted((ref for ref in doomed if ref in known), key=times.__getitem__)
        freed = {_blob_file(known[ref].blob): times[ref] for ref in gone}  # by the newest of those that share one
        now_s = max(times.values())
        self._collect_blobs(blobs, freed, now_s=now_s)
        still = _segments(known[ref] for ref in known.keys() - gone)
        self.collect_segments(_segments(known[ref] for ref in gone) - still, newest=known[whole[-1]].progress.segments)
        if now_s - max(self._swept_s, min(times.values())) >= ORPHAN_S:  # seldom: all indexes are read
            self._swept_s = now_s
            self.collect_orphans(still, before_s=now_s - ORPHAN_S)
        return doomed

    def _collect_blobs(self, blobs: Mapping[str, float], freed: Mapping[str, float], *, now_s: float) -> None:
        """Delete blobs that no manifest names: those in `freed` unless written after their manifest, others when old."""
        left = [manifest for ref in self.manifests() if (manifest := self.manifest_if_any(ref)) is not None]
        named = {_blob_file(manifest.blob) for manifest in left}
        for name, written_s in blobs.items():
            if name not in named and written_s <= freed.get(name, now_s - ORPHAN_S):
                self.files.delete(f"blobs/{name}", seen_s=written_s)
        self.files.sweep(before_s=now_s - ORPHAN_S)

    # Reading

    def _fence(self, number: int) -> Fence:
        known = self._settled.get(number)
        if known is not None:
            return known
        fence = _fence(number, self._document(_fence_name(number)), self._document_if_any(_parent_name(number)))
        if fence.is_named or fence.is_void:
            self._settled[number] = fence
        return fence

    def _manifest_times(self) -> dict[ManifestRef, float]:
        return _refs(self.files.modified("manifests"))

    def _document(self, name: str) -> dict[str, Any]:
        return read_document(self.files.read(name), what=name)

    def _document_if_any(self, name: str) -> dict[str, Any] | None:
        try:
            return self._document(name)
        except NotFoundError:
            return None

    def _digest(self, name: str) -> str:
        try:
            return self.files.digest(name)
        except NotFoundError as error:
            raise CorruptError(f"{name} is missing") from error


def _fence(number: int, claim: dict[str, Any], parent: dict[str, Any] | None) -> Fence:
    try:
        if parent is None:
            return Fence(number, claim["incarnation"])
        if parent.get("void"):
            return Fence(number, claim["incarnation"], is_void=True)
        name = parent["parent"]
        return Fence(number, claim["incarnation"], is_named=True, parent=None if name is None else ManifestRef.parse(name))
    except (KeyError, ValueError) as error:
        raise CorruptError(f"fence {number} is not one") from error


def _fence_name(attempt: int) -> str:
    return f"fences/n{attempt:08d}.json"


def _parent_name(attempt: int) -> str:
    return f"fences/n{attempt:08d}.parent.json"


def _manifest_name(ref: ManifestRef) -> str:
    return f"manifests/{ref.name}.json"


def _pin_name(ref: ManifestRef) -> str:
    return f"pins/{ref.name}.json"


def _blob_file(blob: Blob) -> str:
    return f"{blob.sha256}.safetensors"


def _blob_name(blob: Blob) -> str:
    return f"blobs/{_blob_file(blob)}"


def _refs(names: Mapping[str, float]) -> dict[ManifestRef, float]:
    """The manifests that file names say, with what the names are mapped to."""
    found = {}
    for name, value in names.items():
        try:
            found[ManifestRef.parse(name.removesuffix(".json"))] = value
        except ValueError:  # not ours
            continue
    return found


def _segments(manifests: Iterable[Manifest]) -> set[Segment]:
    return {segment for manifest in manifests for segment in manifest.progress.segments}
