"""The manifest: one file that makes a set of blobs and segments a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dtrain.errors import StateError
from dtrain.steplog.fences import ManifestRef
from dtrain.steplog.positions import Partition, Position, positions_from_json, positions_to_json
from dtrain.steplog.progress import Progress
from dtrain.steplog.segments import check_digest

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Blob:
    """A content-addressed file of tensors (safetensors), by its digest."""

    sha256: str
    num_bytes: int

    @classmethod
    def of(cls, parts: Iterable[bytes | memoryview]) -> Blob:
        """The name of the file that holds `parts`, one behind the other."""
        digest, num_bytes = hashlib.sha256(), 0
        for part in parts:
            digest.update(part)
            num_bytes += memoryview(part).nbytes
        return cls(digest.hexdigest(), num_bytes)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Blob:
        """The name that a manifest holds; ValueError where its digest is none: a file is named by it."""
        check_digest(value["sha256"])
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a trainer wrote for a checkpoint: all but the manifest, which the coordinator alone writes.

    Args:
        progress: where the replica stood; its last segment holds the log tail.
        blob: the tensors.
        numerics: the replica's.
    """

    progress: Progress
    blob: Blob
    numerics: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint: weights, optimizer, buffers, scores (the blob), positions and the step log up to here.

    Args:
        ref: the attempt that wrote it, and its plan number; both in its name.
        job_id: whose it is.
        progress: where the replica stood; its segments hold every entry up to `ref.plan_number`.
        blob: the tensors.
        ends: where each partition ends, resolved once; None for never.
        identity: which topic this is (`stream.source.Identity` as JSON).
        schema: the task's columns.
        spec_json: the job's spec.
        code_sha256: digest of the user's code.
        numerics: what must be equal for a bitwise replay: mode, threads, torch, cpu, device.
        is_final: every partition has reached its end: the job has succeeded.
        written_at_s: wall time.
        lock_sha256: digest of the lock of the packages that the code required; empty where there is none.
    """

    ref: ManifestRef
    job_id: str
    progress: Progress
    blob: Blob
    ends: Mapping[Partition, Position] | None
    identity: Mapping[str, Any]
    schema: Mapping[str, Any]
    spec_json: str
    code_sha256: str
    numerics: Mapping[str, str]
    is_final: bool = False
    written_at_s: float = 0.0
    notes: tuple[str, ...] = field(default=())
    """What a reader of the history should know: a forced code change, a skipped corrupt checkpoint."""
    lock_sha256: str = ""

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self.ref.name

    def to_json(self) -> dict[str, Any]:
        """The manifest without its own digest."""
        return {
            "format": FORMAT,
            "attempt": self.ref.attempt,
            "job_id": self.job_id,
            "progress": self.progress.to_json(),
            "blob": asdict(self.blob),
            "ends": None if self.ends is None else positions_to_json(self.ends),
            "identity": dict(self.identity),
            "schema": dict(self.schema),
            "spec_json": self.spec_json,
            "code_sha256": self.code_sha256,
            "numerics": dict(self.numerics),
            "is_final": self.is_final,
            "written_at_s": self.written_at_s,
            "notes": list(self.notes),
            "lock_sha256": self.lock_sha256,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """The manifest that `to_json` wrote.

        Raises:
            StateError: another dtrain wrote it: it may count, and must not be passed over.
            KeyError, TypeError, ValueError: it is anything else.
        """
        lock_sha256 = value.get("lock_sha256", "")  # jobs had no requirements before
        if lock_sha256:
            check_digest(lock_sha256)
        if type(value["format"]) is not int:
            raise ValueError("it has no format")
        if value["format"] != FORMAT:
            raise StateError(
                f"a checkpoint was written by another dtrain, in format {value['format']}",
                fix=f"use that one; this one knows format {FORMAT}",
            )
        progress = Progress.from_json(value["progress"])
        return cls(
            ref=ManifestRef(value["attempt"], progress.plan_number),
            job_id=value["job_id"],
            progress=progress,
            blob=Blob.from_json(value["blob"]),
            ends=None if value["ends"] is None else positions_from_json(value["ends"]),
            identity=value["identity"],
            schema=value["schema"],
            spec_json=value["spec_json"],
            code_sha256=value["code_sha256"],
            numerics=value["numerics"],
            is_final=value["is_final"],
            written_at_s=value["written_at_s"],
            notes=tuple(value["notes"]),
            lock_sha256=lock_sha256,
        )
