"""The ledger: one attempt's dealings with the checkpoint store. Only here do manifests come into being."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dtrain.checkpoint.attempts import Attempt, claim
from dtrain.checkpoint.commit import commit
from dtrain.checkpoint.locks import read_lock
from dtrain.checkpoint.manifest import Manifest, Snapshot
from dtrain.checkpoint.store import CheckpointStore
from dtrain.clock import Clock
from dtrain.code.digest import digest_of, is_digest_of, with_packages
from dtrain.errors import CorruptError, DriftError, SpecError
from dtrain.packages.lock import Lock, changes, digest_of_lock
from dtrain.spec.drift import differing
from dtrain.spec.job import JobSpec
from dtrain.steplog.fences import ManifestRef
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.segments import Segment, check_tiling


@dataclass(frozen=True, slots=True)
class Origin:
    """What is settled once, in checkpoint 0, and never again (invariant 7)."""

    identity: Mapping[str, object]
    """`stream.source.Identity` as JSON."""
    ends: Mapping[Partition, Position] | None


@dataclass(slots=True)
class Ledger:
    """What an attempt knows of the job's durable past, and how it adds to it.

    Args:
        store: the job's checkpoint store.
        spec: the job.
        job_id: its id.
        attempt: this one; its parent is where it began.
        code_sha256: digest of the user's code as it is now.
        clock: for the time that a manifest was written.
        durable: the newest manifest of this attempt, or its parent.
    """

    store: CheckpointStore
    spec: JobSpec
    job_id: str
    attempt: Attempt
    code_sha256: str
    clock: Clock
    durable: Manifest | None
    notes: list[str] = field(default_factory=list)
    lock_sha256: str = ""
    """Digest of the lock of the packages that the code requires; empty where there is none."""

    @property
    def program_sha256(self) -> str:
        """Digest of code and packages together: what the job's processes must have in common."""
        return with_packages(self.code_sha256, self.lock_sha256)

    @classmethod
    def open(
        cls,
        store: CheckpointStore,
        spec: JobSpec,
        *,
        job_id: str,
        incarnation: int,
        accept_code_change: bool,
        clock: Clock,
        code: str | None = None,
        lock: str = "",
    ) -> Ledger:
        """Claim the job's next attempt: every older one can write nothing that counts from now on.

        Args:
            store: the job's checkpoint store.
            spec: the job.
            job_id: its id.
            incarnation: of the coordinator.
            accept_code_change: other code than the checkpoint's, or other packages, are no reason to stop.
            clock: for the time that manifests are written.
            code: the folder of its code here, if it is not that of the spec.
            lock: of the packages that its code requires, as JSON.

        Raises:
            FencedError: a higher incarnation was faster.
            CorruptError: there are checkpoints and none is sound.
            DriftError: code or packages are not the checkpoint's, and nobody allowed that; or the spec is not, in what settles something.
            StorageError: the store cannot be read or written.
        """
        notes: list[str] = []
        folder = spec.code if code is None else code
        file = spec.requirements_file
        code_sha256, lock_sha256 = digest_of(folder, requirements=file), digest_of_lock(lock)
        attempt = claim(store, incarnation=incarnation, on_skip=notes.append)
        parent = attempt.parent
        if parent is not None and not is_digest_of(parent.code_sha256, folder, requirements=file):
            change = f"code changed from {parent.code_sha256[:12]} to {code_sha256[:12]} behind checkpoint {parent.name}"
            if not accept_code_change:
                raise DriftError(change, fix="restore the code, or resume with --accept-code-change")
            notes.append(change)
        if parent is not None and parent.lock_sha256 != lock_sha256:
            change = f"packages changed behind checkpoint {parent.name}: {_differing(store, parent.lock_sha256, lock)}"
            if not accept_code_change:
                raise DriftError(change, fix="restore `requirements`, or resume with --accept-code-change")
            notes.append(change)
        if parent is not None:
            _check_spec(spec, parent)
        return cls(store, spec, job_id, attempt, code_sha256, clock, parent, notes, lock_sha256)

    def begin(self, snapshot: Snapshot, *, origin: Origin, schema: Mapping[str, Any]) -> Manifest:
        """Checkpoint 0 is durable: initial weights, resolved positions and end, seed, digests."""
        return self._commit(snapshot, origin=origin, schema=schema, before=_nothing, after=_nothing)

    def commit(
        self,
        snapshot: Snapshot,
        *,
        flush_rejects: Callable[[list[RowRange]], None],
        give_back: Callable[[Progress], None],
    ) -> Manifest:
        """The next checkpoint is durable. Dead letters are flushed before it, positions given back to Kafka after it.

        Args:
            snapshot: what the trainer wrote.
            flush_rejects: called with the ranges since the last checkpoint that have rejects; raises to refuse the checkpoint.
            give_back: advisory; called once the manifest counts.

        Raises:
            FencedError: a later attempt has begun; nothing follows from this checkpoint.
            StorageError: the manifest could not be written; the last checkpoint stands.
        """
        last = self.durable
        if last is None:
            raise DriftError("a checkpoint came before checkpoint 0")

        def before() -> None:
            entries = self.store.entries(snapshot.progress, after=last.progress.plan_number)
            ranges = [item for entry in entries for item in entry.ranges if item.rejects]
            if ranges:
                flush_rejects(ranges)

        return self._commit(
            snapshot,
            origin=Origin(last.identity, last.ends),
            schema=last.schema,
            before=before,
            after=lambda: give_back(snapshot.progress),
        )

    def _commit(
        self,
        snapshot: Snapshot,
        *,
        origin: Origin,
        schema: Mapping[str, Any],
        before: Callable[[], None],
        after: Callable[[], None],
    ) -> Manifest:
        plan_number = snapshot.progress.plan_number
        manifest = Manifest(
            ref=ManifestRef(self.attempt.number, plan_number),
            job_id=self.job_id,
            progress=replace(snapshot.progress, segments=self._merged(snapshot.progress)),
            blob=snapshot.blob,
            ends=origin.ends,
            identity=origin.identity,
            schema=schema,
            spec_json=self.spec.to_json(),
            code_sha256=self.code_sha256,
            numerics=snapshot.numerics,
            is_final=plan_number > 0 and _is_at_end(snapshot.progress, origin),
            written_at_s=self.clock.wall_s(),
            notes=tuple(self.notes),
            lock_sha256=self.lock_sha256,
        )
        undeleted = commit(self.store, manifest=manifest, keep=self.spec.checkpoint.keep, before=before, after=after)
        self.durable = manifest
        self.notes = [f"old checkpoints could not be deleted: {undeleted}"] if undeleted else []
        return manifest

    def _merged(self, progress: Progress) -> tuple[Segment, ...]:
        """A replica's log in tiers: what the last checkpoint named, merged, and what is new.

        The replica may not have heard of the last checkpoint yet, or may know of later ones that were passed over.
        """
        known = self.durable.progress.segments if self.durable is not None else ()
        end = known[-1].last if known else 0
        new = [segment for segment in progress.segments if segment.last > end]
        if new and new[0].first <= end:
            new[0] = self.store.put_segment(list(self.store.read_segment(new[0], after=end)))
        line = (*self.store.merge(known), *new)
        check_tiling(line, first=1, last=progress.plan_number)
        return line


def _check_spec(spec: JobSpec, parent: Manifest) -> None:
    """Raise `DriftError` where `spec` is not that of `parent` in what settles something."""
    try:
        then = JobSpec.from_json(parent.spec_json)
    except SpecError as error:
        raise DriftError(
            f"the job of checkpoint {parent.name} is none that this dtrain knows", fix="use the one that wrote it"
        ) from error
    changes = differing(then, spec)
    if changes:
        raise DriftError(
            f"the job is not the one of checkpoint {parent.name}: {'; '.join(changes[:5])}",
            fix="restore these fields, or give the job another `name`: then it is a new one",
        )


def _differing(store: CheckpointStore, then_sha256: str, lock: str) -> str:
    """In words; by their digests, where the lock of then cannot be read any more."""
    none = Lock((), ())
    try:
        then = read_lock(store, then_sha256)
        found = changes(Lock.from_json(then) if then else none, Lock.from_json(lock) if lock else none)
    except CorruptError:
        return f"the lock {then_sha256[:12]} then, {digest_of_lock(lock)[:12] or 'none'} now"
    return ", ".join(found)[:500] or "others of the workers' own are meant"


def _is_at_end(progress: Progress, origin: Origin) -> bool:
    if origin.ends is None or progress.span is not None:
        return False
    return all(progress.positions.get(p, end) >= end for p, end in origin.ends.items())


def _nothing() -> None:
    """No effect."""
