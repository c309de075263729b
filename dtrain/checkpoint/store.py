"""The checkpoint store: one folder a job that holds the truth.

    fences/n{attempt}.json           an attempt's claim                     made if absent
    fences/n{attempt}.parent.json    where it began, or that it is void     made if absent
    manifests/{manifest}.json        what makes a checkpoint of the rest    made if absent
    blobs/{sha256}.safetensors       tensors, by their digest
    segments/{sha256}.jsonl          sealed pieces of the step log, by their digest

Blobs and segments first, the manifest last: a checkpoint can be read if and only if it is complete and its digests verify.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dtrain.checkpoint.documents import read_document, write_document
from dtrain.checkpoint.files import LocalFiles
from dtrain.checkpoint.manifest import Blob, Manifest
from dtrain.errors import ConflictError, CorruptError, InternalError, NotFoundError
from dtrain.steplog import fences, segments
from dtrain.steplog.entries import Entry
from dtrain.steplog.fences import Fence, ManifestRef
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.segments import Segment

_CLAIM = re.compile(r"n(\d{8,})\.json", re.ASCII)
ORPHAN_S = 7200.0
"""How long a file that no manifest names is left alone: somebody may be about to publish it."""


class CheckpointStore:
    """Checkpoints of one job.

    Every method raises `StorageError` when a file cannot be read or written now; that never means that it is corrupt.

    Args:
        folder: of this job alone; made when something is first written.
        files: another kind of storage than the local file system; for tests that let it fail.
    """

    def __init__(self, folder: Path, *, files: LocalFiles | None = None) -> None:
        self.files = files or LocalFiles(folder)

    # Blobs and segments

    def put_blob(self, content: bytes) -> Blob:
        """The blob is durable, and fresh: nobody collects it as garbage before its manifest can follow."""
        blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
        self.files.put(_blob_name(blob), content)
        return blob

    def read_blob(self, blob: Blob) -> bytes:
        """The bytes of `blob`. Raises `CorruptError` if they are missing or others."""
        content = self._read(_blob_name(blob))
        if hashlib.sha256(content).hexdigest() != blob.sha256 or len(content) != blob.num_bytes:
            raise CorruptError(f"blob {blob.sha256[:12]} does not match its digest")
        return content

    def put_segment(self, entries: Sequence[Entry]) -> Segment:
        """The segment of `entries` (>= 1, consecutive) is durable."""
        segment, content = segments.seal(entries)
        self.files.put(_segment_name(segment), content)
        return segment

    def read_segment(self, segment: Segment) -> list[Entry]:
        """The entries of `segment`. Raises `CorruptError` if they are missing or others."""
        return segments.unseal(segment, self._read(_segment_name(segment)))

    def entries(self, progress: Progress, *, after: int = 0) -> Iterator[Entry]:
        """Every entry up to `progress.plan_number` with a number above `after`, in order, read segment by segment.

        Raises:
            CorruptError: a segment is missing or other, or the sealed segments do not hold all entries.
        """
        end = 0
        for segment in progress.segments:
            if segment.first != end + 1:
                raise CorruptError(f"log segment {segment.sha256[:12]} does not follow entry {end}")
            end = segment.last
            if end > after:
                yield from (entry for entry in self.read_segment(segment) if entry.number > after)
        if end != progress.plan_number:
            raise CorruptError(f"the log ends at entry {end}, not at {progress.plan_number}")

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
        starts = self._replay(manifest.progress, since or Progress())
        line = self.history() if since is None else []
        if line and line[0].plan_number == 0:
            try:
                begin = self.read_manifest(line[0]).progress.positions
            except (CorruptError, NotFoundError):
                return
            if dict(begin) != starts:
                raise CorruptError(f"the log of checkpoint {manifest.name} does not begin where the job began")

    def _replay(self, progress: Progress, since: Progress) -> dict[Partition, Position]:
        """Where the log of `progress` begins; CorruptError if it does not lead there from `since`."""
        starts = dict(since.positions)
        reached = since
        for entry in self.entries(progress, after=since.plan_number):
            new = {r.partition: r.start for r in reversed(entry.ranges) if r.partition not in starts}
            starts.update(new)
            if entry.num_rows != sum(r.num_rows for r in entry.ranges):
                raise CorruptError(f"log entry {entry.number} does not train the rows of its ranges")
            try:
                reached = replace(reached, positions={**reached.positions, **new}).apply(entry)
            except InternalError as error:
                raise CorruptError(f"log entry {entry.number} does not follow: {error.reason}") from error
        untouched = {p: at for p, at in progress.positions.items() if p not in starts}
        if replace(reached, positions={**reached.positions, **untouched}, segments=progress.segments) != progress:
            raise CorruptError(f"the log up to entry {progress.plan_number} does not lead to the checkpoint's progress")
        return {**starts, **untouched}

    # Fences

    def attempts(self) -> list[int]:
        """The numbers of all fences, rising."""
        return sorted(int(found[1]) for found in map(_CLAIM.fullmatch, self.files.modified("fences")) if found)

    def fences(self) -> dict[int, Fence]:
        """Every fence by its attempt. Raises `CorruptError` if one cannot be believed: nobody knows then what counts."""
        names = self.files.modified("fences")
        found = {}
        for number in sorted(int(match[1]) for match in map(_CLAIM.fullmatch, names) if match):
            value = self._document(_fence_name(number))
            parent = self._document(_parent_name(number)) if f"n{number:08d}.parent.json" in names else None
            found[number] = _fence(number, value, parent)
        return found

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

    def keep(self, number: int) -> list[ManifestRef]:
        """At most the newest `number` (>= 2) checkpoints that count are left, and checkpoint 0: replay needs the beginning.

        Manifests that do not count go once they are older than those kept, blobs with their last manifest, and files that
        no manifest names when nobody has touched them for two hours. Segments stay: the newest manifest names them all.
        Only for the attempt that owns the job.

        Returns:
            The manifests that were deleted.
        """
        blobs = self.files.modified("blobs")  # before the manifests: a blob that is published meanwhile is seen as old here
        times = self._manifest_times()
        line = fences.history(times, self.fences())
        if not line:
            return []
        oldest = line[-max(number, 2) :][0]
        spared = {line[0]} if line[0].plan_number == 0 else set()
        doomed = sorted(ref for ref in times if ref.plan_number < oldest.plan_number and ref not in spared)
        freed: dict[str, float] = {}
        for ref in doomed:
            name = self._blob_of(ref)
            if name:
                freed[name] = max(times[ref], freed.get(name, 0.0))
            self.files.delete(_manifest_name(ref), seen_s=times[ref])
        self._collect(blobs, freed, now_s=max(times.values()))
        return doomed

    def _collect(self, blobs: dict[str, float], freed: dict[str, float], *, now_s: float) -> None:
        """Delete blobs that no manifest names: those in `freed` unless written after their manifest, others when old."""
        named = {self._blob_of(ref) for ref in self.manifests()}
        for name, written_s in blobs.items():
            if name not in named and written_s <= freed.get(name, now_s - ORPHAN_S):
                self.files.delete(f"blobs/{name}", seen_s=written_s)
        for folder in ("fences", "manifests", "segments"):
            for name, written_s in self.files.modified(folder).items():
                if name.startswith(".") and written_s <= now_s - ORPHAN_S:
                    self.files.delete(f"{folder}/{name}", seen_s=written_s)

    def _blob_of(self, ref: ManifestRef) -> str | None:
        """The file name of a manifest's blob; None when the manifest is corrupt or gone: it can never be loaded."""
        try:
            return f"{self.read_manifest(ref).blob.sha256}.safetensors"
        except (CorruptError, NotFoundError):
            return None

    # Reading

    def _manifest_times(self) -> dict[ManifestRef, float]:
        found = {}
        for name, written_s in self.files.modified("manifests").items():
            try:
                found[ManifestRef.parse(name.removesuffix(".json"))] = written_s
            except ValueError:  # unfinished, or not ours
                continue
        return found

    def _document(self, name: str) -> dict[str, Any]:
        return read_document(self.files.read(name), what=name)

    def _read(self, name: str) -> bytes:
        try:
            return self.files.read(name)
        except NotFoundError as error:
            raise CorruptError(f"{name} is missing") from error

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


def _blob_name(blob: Blob) -> str:
    return f"blobs/{blob.sha256}.safetensors"


def _segment_name(segment: Segment) -> str:
    return f"segments/{segment.sha256}.jsonl"
