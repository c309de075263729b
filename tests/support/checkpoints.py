"""Builders of checkpoints: real segments, blobs and manifests of a made-up stream, without trainers."""

from dataclasses import replace

from dtrain.checkpoint.commit import commit
from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.fences import ManifestRef
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange

PARTITIONS = (Partition("events", 0), Partition("events", 1))
BEGIN = Progress(positions={partition: Position(0) for partition in PARTITIONS})


def take(progress: Progress, partition: Partition, num_rows: int) -> RowRange:
    """The next `num_rows` records of one row each."""
    start = progress.positions[partition]
    last = start.offset + num_rows - 1
    return RowRange(partition, start, Position(start.offset + num_rows), num_rows, last_offset=last, last_crc=last % 97)


def next_entries(progress: Progress, *, rows: int = 3) -> list[Entry]:
    """A data step of 2 * `rows` rows and a checkpoint, as the next entries."""
    ranges = tuple(take(progress, partition, rows) for partition in PARTITIONS)
    number = progress.plan_number
    return [Entry(number + 1, StepKind.DATA, ranges, 2 * rows), Entry(number + 2, StepKind.CHECKPOINT)]


def extend(store: CheckpointStore, progress: Progress, *, rows: int = 3) -> Progress:
    """`progress` two entries later, its segment sealed in `store`."""
    entries = next_entries(progress, rows=rows)
    for entry in entries:
        progress = progress.apply(entry)
    return progress.seal(store.put_segment(entries))


def merged(store: CheckpointStore, progress: Progress) -> Progress:
    """The same place, its segments merged as the ledger does it for the next checkpoint."""
    return replace(progress, segments=store.merge(progress.segments))


def make_manifest(store: CheckpointStore, attempt: int, progress: Progress, *, content: bytes | None = None) -> Manifest:
    """A manifest at `progress`, its blob (by default one that only this history has) in `store`."""
    blob = store.put_blob(progress.log_hash.encode() if content is None else content)
    return Manifest(
        ref=ManifestRef(attempt, progress.plan_number),
        job_id="job-1",
        progress=progress,
        blob=blob,
        ends=None,
        identity={"topic_id": "x"},
        schema={"a": "f32"},
        spec_json="{}",
        code_sha256="0" * 64,
        numerics={"mode": "fast"},
    )


def commit_next(
    store: CheckpointStore, attempt: int, parent: Manifest | None, *, rows: int = 3, keep: int = 10_000
) -> Manifest:
    """The next checkpoint of the line, committed; checkpoint 0 without a parent."""
    progress = extend(store, parent.progress, rows=rows) if parent else BEGIN
    manifest = make_manifest(store, attempt, progress)
    commit(store, manifest=manifest, keep=keep, before=lambda: None, after=lambda: None)
    return manifest


def commit_line(
    store: CheckpointStore, attempt: int, *, count: int, parent: Manifest | None = None, keep: int = 10_000
) -> list[Manifest]:
    """`count` checkpoints, each extending the one before; the first is checkpoint 0 without a parent."""
    line: list[Manifest] = []
    for _ in range(count):
        line.append(commit_next(store, attempt, line[-1] if line else parent, keep=keep))
    return line


def with_rows_trained(manifest: Manifest, rows: int) -> Manifest:
    """The same manifest, lying about its rows."""
    return replace(manifest, progress=replace(manifest.progress, rows_trained=rows))
