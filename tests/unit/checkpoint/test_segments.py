"""The log in tiers: whole from every checkpoint that is kept, and small."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.checkpoint.commit import commit
from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import CorruptError
from dtrain.steplog import segments
from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.progress import Progress
from tests.support.checkpoints import BEGIN, extend, make_manifest, merged, next_entries
from tests.support.memory_files import MemoryFiles


def commit_merged(store: CheckpointStore, parent: Manifest | None, *, rows: int, keep: int) -> Manifest:
    """The next checkpoint as the ledger makes it."""
    progress = extend(store, merged(store, parent.progress), rows=rows) if parent else BEGIN
    manifest = make_manifest(store, 1, progress)
    commit(store, manifest=manifest, keep=keep, before=lambda: None, after=lambda: None)
    return manifest


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 2, 9]), min_size=1, max_size=150),
    joined_bytes=st.sampled_from([0, 2000, 15_000, 10**6]),
    keep=st.integers(2, 12),
    pinned=st.sets(st.integers(1, 150), max_size=3),
)
def test_log_from_any_kept_checkpoint_reads_whole(sizes: list[int], joined_bytes: int, keep: int, pinned: set[int]) -> None:
    store, parent = CheckpointStore(MemoryFiles()), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "JOINED_BYTES", joined_bytes)
        for number, rows in enumerate([0, *sizes]):
            parent = commit_merged(store, parent, rows=rows, keep=keep)
            if number in pinned:
                store.pin(parent.ref)
    kept = [store.read_manifest(ref) for ref in store.manifests()]
    assert len(kept) <= keep + 1 + len(pinned)
    for manifest in kept:
        store.verify(manifest)
        assert len(manifest.progress.segments) <= 10 * 3 + 1
    assert parent is not None
    for after in (0, 1, len(sizes), 2 * len(sizes) - 1):
        numbers = [entry.number for entry in store.entries(parent.progress, after=after)]
        assert numbers == list(range(after + 1, 2 * len(sizes) + 1))


def test_segments_that_were_joined_go_with_the_checkpoints_that_named_them() -> None:
    store, parent = CheckpointStore(MemoryFiles()), None
    for _ in range(1 + 238):
        parent = commit_merged(store, parent, rows=1, keep=3)
    assert parent is not None
    assert [segment.tier for segment in parent.progress.segments] == [2, 2, 1, 1, 1, *[0] * 8]
    assert len(store.files.modified("segments")) == 2 + 3 + 8


def indexed() -> tuple[MemoryFiles, CheckpointStore, Manifest]:
    """A job of 126 checkpoints, and the newest of them."""
    files = MemoryFiles()
    store, parent = CheckpointStore(files), None
    for _ in range(1 + 125):
        parent = commit_merged(store, parent, rows=1, keep=2)
    assert parent is not None
    return files, store, parent


def test_index_keeps_what_it_lists_and_damage_below_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "JOINED_BYTES", 0)
    files, store, parent = indexed()
    assert len(files.modified("segments")) == 125 + 12 + 1
    for name in list(files.contents):
        if name.startswith("segments/"):
            content = files.contents[name]
            files.contents[name] = content[:-2] + b"x" + content[-1:]
            with pytest.raises(CorruptError):
                store.verify(parent)
            files.contents[name] = content
    store.verify(parent)


def late(files: MemoryFiles) -> None:
    """Three hours have passed."""
    files.num_writes += 3 * 3600


def test_segments_of_killed_writers_go_after_two_hours_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "JOINED_BYTES", 0)
    files, store, parent = indexed()
    before = set(files.modified("segments"))
    store.put_segment(next_entries(parent.progress, rows=5))
    late(files)
    store.put_segment(next_entries(parent.progress, rows=6))
    parent = commit_merged(store, parent, rows=1, keep=2)
    left = set(files.modified("segments"))
    assert left >= before
    assert len(left - before) == 2, "that of the checkpoint, and that which may be about to be named"
    store.verify(parent)


def test_index_that_is_damaged_keeps_everything_and_stops_no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the log is told; a job that goes on does not read it."""
    monkeypatch.setattr(segments, "JOINED_BYTES", 0)
    files = MemoryFiles()
    store, line = CheckpointStore(files), list[Manifest]()
    while not (line and line[-1].progress.segments and line[-1].progress.segments[0].is_index):
        line.append(commit_merged(store, line[-1] if line else None, rows=1, keep=3))
    index = line[-1].progress.segments[0]
    files.contents[f"segments/{index.sha256}.jsonl"] += b"x"
    late(files)
    before = set(files.modified("segments"))
    for _ in range(5):
        line.append(commit_merged(store, line[-1], rows=1, keep=3))
    assert files.modified("segments").keys() >= before
    with pytest.raises(CorruptError):
        store.verify(line[-1])


def test_merge_of_what_is_corrupt_joins_nothing_and_loses_no_other_byte() -> None:
    files = MemoryFiles()
    store, progress = CheckpointStore(files), BEGIN
    for _ in range(10):
        progress = extend(store, progress)
    victim = f"segments/{progress.segments[3].sha256}.jsonl"
    sound, files.contents[victim] = files.contents[victim], b"torn"
    line = store.merge(progress.segments)
    assert [segment.is_index for segment in line] == [True]
    files.contents[victim] = sound
    assert len(list(store.entries(replace(progress, segments=line)))) == 20


def test_log_of_a_million_steps_has_few_names_and_is_written_twice_at_most() -> None:
    files = MemoryFiles()
    store, sealed_bytes, longest = CheckpointStore(files), 0, 0
    progress = Progress()
    for first in range(1, 10**6, 1000):
        segment = store.put_segment([Entry(number, StepKind.CHECKPOINT) for number in range(first, first + 1000)])
        sealed_bytes += segment.num_bytes
        progress = Progress(plan_number=segment.last, segments=(*store.merge(progress.segments), segment))
        longest = max(longest, len(progress.segments))
    assert longest <= 10 * 3 + 1
    assert files.num_bytes_written < 2.1 * sealed_bytes
    assert sum(1 for _ in store.entries(progress, after=900_000)) == 100_000
