import errno
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from dtrain.checkpoint.documents import write_document
from dtrain.checkpoint.manifest import Blob
from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import ConflictError, CorruptError, DtrainError, NotFoundError, StateError, StorageError
from dtrain.steplog.entries import Entry
from dtrain.steplog.fences import ManifestRef
from dtrain.steplog.window import RejectWindow
from tests.support.checkpoints import BEGIN, PARTITIONS, commit_line, extend, make_manifest, next_entries
from tests.support.faulty_files import HookedFiles, os_error


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return open_store(tmp_path / "job")


def paths(store: CheckpointStore, folder: str) -> list[Path]:
    return sorted((store.files._root / folder).iterdir())


def test_blob_read_is_what_was_put(store: CheckpointStore) -> None:
    blob = store.put_blob(b"weights")
    assert store.put_blob(b"weights") == blob
    assert store.read_blob(blob) == b"weights"


def test_blob_put_again_repairs_a_corrupt_one(store: CheckpointStore) -> None:
    blob = store.put_blob(b"weights")
    paths(store, "blobs")[0].write_bytes(b"weightz")
    store.put_blob(b"weights")
    assert store.read_blob(blob) == b"weights"


@pytest.mark.parametrize("content", [b"weightz", b"weight", b"weights!", b"", None])
def test_blob_that_is_other_than_written_is_corrupt(store: CheckpointStore, content: bytes | None) -> None:
    blob = store.put_blob(b"weights")
    path = paths(store, "blobs")[0]
    path.write_bytes(content) if content is not None else path.unlink()
    with pytest.raises(CorruptError):
        store.read_blob(blob)


def test_segment_read_is_what_was_put(store: CheckpointStore) -> None:
    entries = next_entries(BEGIN)
    assert list(store.read_segment(store.put_segment(entries))) == entries


def test_segment_whose_name_lies_about_its_entries_is_corrupt(store: CheckpointStore) -> None:
    segment = store.put_segment(next_entries(BEGIN))
    for first, last in ((1, 3), (2, 3), (1, 1)):
        with pytest.raises(CorruptError):
            list(store.read_segment(replace(segment, first=first, last=last)))


@pytest.mark.parametrize("after", range(8))
def test_entries_after_a_number_are_the_rest_of_the_log(store: CheckpointStore, after: int) -> None:
    progress = extend(store, extend(store, extend(store, BEGIN)))
    assert [entry.number for entry in store.entries(progress, after=after)] == list(range(after + 1, 7))


@pytest.mark.parametrize("drop", [0, 1, 2])
def test_entries_with_a_segment_left_out_are_corrupt(store: CheckpointStore, drop: int) -> None:
    progress = extend(store, extend(store, extend(store, BEGIN)))
    kept = tuple(s for i, s in enumerate(progress.segments) if i != drop)
    with pytest.raises(CorruptError):
        list(store.entries(replace(progress, segments=kept)))


def test_manifest_read_is_what_was_put(store: CheckpointStore) -> None:
    manifest = replace(
        make_manifest(store, 1, extend(store, BEGIN)), ends=dict(BEGIN.positions), notes=("forced",), is_final=True
    )
    store.put_manifest(manifest)
    store.put_manifest(manifest)
    assert store.read_manifest(manifest.ref) == manifest
    assert store.find(manifest.name) == manifest
    assert store.manifests() == [manifest.ref]


def test_manifest_of_a_taken_name_is_a_conflict(store: CheckpointStore) -> None:
    manifest = make_manifest(store, 1, BEGIN)
    store.put_manifest(manifest)
    with pytest.raises(ConflictError, match=manifest.name):
        store.put_manifest(replace(manifest, job_id="other"))
    assert store.read_manifest(manifest.ref) == manifest


def test_manifest_under_another_name_is_corrupt(store: CheckpointStore) -> None:
    store.put_manifest(make_manifest(store, 1, BEGIN))
    ref = ManifestRef(2, 0)
    paths(store, "manifests")[0].rename(store.files._root / "manifests" / f"{ref.name}.json")
    with pytest.raises(CorruptError):
        store.read_manifest(ref)


def test_names_that_are_no_manifests_are_ignored(store: CheckpointStore) -> None:
    commit_line(store, 1, count=1)
    for name in (".x", "p000000000007-a00000001.json.bak", "p7-a1.json", "notes.txt", "p+00000000007-a00000001.json"):
        (store.files._root / "manifests" / name).write_text("{}")
    assert store.manifests() == [ManifestRef(1, 0)]


@pytest.mark.parametrize(
    "name", ["", "x", "../../etc/passwd", "p1-a1", "p000000000001-a00000001", "p000000000001-a00000001/../x"]
)
def test_find_of_an_unknown_name_is_not_found(store: CheckpointStore, name: str) -> None:
    with pytest.raises(NotFoundError):
        store.find(name)


def test_find_without_a_checkpoint_is_not_found(store: CheckpointStore) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint yet"):
        store.find(None)


def test_find_without_a_name_is_the_newest_that_counts(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=3)
    store.create_fence(2, incarnation=2)
    store.name_parent(2, line[1].ref)
    assert store.find(None) == line[1]
    assert store.history() == [line[0].ref, line[1].ref]


def test_reading_an_empty_store_makes_nothing(store: CheckpointStore) -> None:
    assert (store.manifests(), store.history(), store.fences(), store.attempts()) == ([], [], {}, [])
    assert not store.files._root.exists()


# Verification


def test_verify_of_every_checkpoint_of_a_line_passes(store: CheckpointStore) -> None:
    for manifest in commit_line(store, 1, count=4):
        store.verify(manifest)


@pytest.mark.parametrize("span_rows", [1_000, 10**9])
def test_verify_of_a_job_whose_bad_rows_are_counted_in_a_window_of_its_own_passes(
    store: CheckpointStore, span_rows: int
) -> None:
    progress = replace(BEGIN, window=RejectWindow(span_rows))
    for _ in range(2):
        manifest = make_manifest(store, 1, progress)
        store.put_manifest(manifest)
        store.verify(manifest)
        progress = extend(store, progress)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, plan_number=p.plan_number + 1),
        lambda p: replace(p, step=p.step + 1),
        lambda p: replace(p, log_hash="1" * 64),
        lambda p: replace(p, rows_trained=p.rows_trained + 1),
        lambda p: replace(p, rows_rejected=1),
        lambda p: replace(p, marks={}),
        lambda p: replace(p, positions={**p.positions, PARTITIONS[0]: p.positions[PARTITIONS[1]]._replace(row=1)}),
        lambda p: replace(p, segments=p.segments[:-1]),
        lambda p: replace(p, segments=(p.segments[0], p.segments[0])),
        lambda p: replace(p, segments=tuple(reversed(p.segments))),
    ],
)
def test_verify_of_progress_to_which_the_log_does_not_lead_is_corrupt(store: CheckpointStore, change: object) -> None:
    manifest = commit_line(store, 1, count=3)[-1]
    with pytest.raises(CorruptError):
        store.verify(replace(manifest, progress=change(manifest.progress)))  # type: ignore[operator]


def test_verify_of_a_checkpoint_that_is_not_kept_any_more_is_not_found(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=5)
    store.keep(2)
    with pytest.raises(NotFoundError, match="gone"):
        store.verify(line[1])


def skip_a_row(entries: list[Entry]) -> None:
    first = entries[0].ranges[0]
    entries[0] = replace(entries[0], ranges=(replace(first, start=first.start._replace(offset=first.start.offset + 1)),))


def miscount(entries: list[Entry]) -> None:
    entries[0] = replace(entries[0], num_rows=entries[0].num_rows + 1)


@pytest.mark.parametrize("break_log", [skip_a_row, miscount])
@pytest.mark.parametrize("at", [0, 1])
def test_verify_of_a_log_that_does_not_tile_is_corrupt_though_all_digests_agree(
    store: CheckpointStore, break_log: object, at: int
) -> None:
    commit_line(store, 1, count=1)
    progress = BEGIN
    for index in range(2):
        entries = next_entries(progress)
        if index == at:
            break_log(entries)  # type: ignore[operator]
        moved = {r.partition: r.start for r in entries[0].ranges}
        progress = replace(progress, positions={**progress.positions, **moved})
        for entry in entries:
            progress = progress.apply(entry)
        progress = progress.seal(store.put_segment(entries))
    manifest = make_manifest(store, 1, progress)
    store.put_manifest(manifest)
    with pytest.raises(CorruptError):
        store.verify(manifest)


def test_verify_without_checkpoint_0_still_judges_by_the_log(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=2)
    paths(store, "manifests")[0].write_bytes(b"{}")
    store.verify(line[1])


def test_flip_of_any_byte_is_never_sound(store: CheckpointStore) -> None:
    """faults.md, 14: each of 200 random bytes of everything that the newest checkpoint consists of."""
    newest = commit_line(store, 1, count=3)[-1]
    manifest_path = store.files._root / "manifests" / f"{newest.name}.json"
    targets = [manifest_path, store.files._root / "blobs" / f"{newest.blob.sha256}.safetensors", *paths(store, "segments")]
    rng = random.Random(14)
    for _ in range(200):
        path = rng.choice(targets)
        content = path.read_bytes()
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        with pytest.raises(CorruptError):
            store.verify(store.read_manifest(newest.ref))
        path.write_bytes(content)
    store.verify(store.read_manifest(newest.ref))


def test_cut_at_any_length_is_never_sound(store: CheckpointStore) -> None:
    newest = commit_line(store, 1, count=2)[-1]
    for path in (paths(store, "manifests")[-1], paths(store, "segments")[0]):
        content = path.read_bytes()
        for length in range(0, len(content), 7):
            path.write_bytes(content[:length])
            with pytest.raises(CorruptError):
                store.verify(store.read_manifest(newest.ref))
        path.write_bytes(content)


def test_manifest_that_outsiders_signed_is_corrupt_not_a_crash(store: CheckpointStore) -> None:
    good = make_manifest(store, 1, BEGIN).to_json()
    for key in good:
        for value in (None, 3, "x", [], {}, [[]]):
            content = write_document({**good, key: value})
            store.files.put(f"manifests/{ManifestRef(1, 0).name}.json", content)
            try:
                store.verify(store.read_manifest(ManifestRef(1, 0)))
            except DtrainError as error:
                assert isinstance(error, StateError if (key, value) == ("format", 3) else CorruptError)  # noqa: PT017


@pytest.mark.parametrize("digest", ["../../secret", "0" * 63, "A" * 64, "0" * 64 + "\n", 7, None])
@pytest.mark.parametrize("what", ["blob", "segment"])
def test_digest_in_a_manifest_that_is_none_leads_to_no_file(store: CheckpointStore, what: str, digest: object) -> None:
    value = make_manifest(store, 1, extend(store, BEGIN)).to_json()
    (value["blob"] if what == "blob" else value["progress"]["segments"][0])["sha256"] = digest
    ref = ManifestRef(1, 2)
    store.files.put(f"manifests/{ref.name}.json", write_document(value))
    with pytest.raises(CorruptError, match="is not a manifest: not a sha256"):
        store.read_manifest(ref)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
@pytest.mark.parametrize("name", ["manifests/", "blobs/", "segments/"])
def test_file_that_cannot_be_read_now_is_not_called_corrupt(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    newest = commit_line(store, 1, count=2)[-1]
    opened = Path.open

    def fail(path: Path, *args: object, **kwargs: object) -> object:
        if name in str(path):
            raise os_error(number)
        return opened(path, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StorageError, match=name):
        store.verify(store.read_manifest(newest.ref))


# Fences


def test_fence_is_claimed_once_and_named_once(store: CheckpointStore) -> None:
    assert store.create_fence(1, incarnation=5)
    assert not store.create_fence(1, incarnation=6)
    assert (store.fences()[1].incarnation, store.fences()[1].is_named) == (5, False)
    assert store.name_parent(1, None)
    assert store.name_parent(1, None)
    assert not store.name_parent(1, ManifestRef(1, 0))
    store.void(1)
    fence = store.fences()[1]
    assert (fence.is_named, fence.is_void, fence.parent) == (True, False, None)


def test_fence_that_is_void_cannot_be_named(store: CheckpointStore) -> None:
    store.create_fence(1, incarnation=1)
    store.void(1)
    assert not store.name_parent(1, None)
    assert store.fences()[1].is_void
    assert not store.fences()[1].is_named


def test_fence_with_any_byte_flipped_stops_everything_that_depends_on_it(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=2)
    store.create_fence(2, incarnation=2)
    store.name_parent(2, line[0].ref)
    for path in paths(store, "fences"):
        content = path.read_bytes()
        for place in range(len(content)):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            with pytest.raises(CorruptError):
                store.history()
        path.write_bytes(content)
    assert store.history() == [line[0].ref]


# Keeping


@pytest.mark.parametrize("number", [2, 3, 5])
def test_keep_leaves_the_newest_and_checkpoint_0(store: CheckpointStore, number: int) -> None:
    line = commit_line(store, 1, count=8)
    assert store.keep(number) == [m.ref for m in line[1 : 8 - number]]
    assert store.manifests() == [line[0].ref, *[m.ref for m in line[8 - number :]]]
    for manifest in [line[0], *line[8 - number :]]:
        store.verify(manifest)
    assert len(paths(store, "blobs")) == number + 1
    assert store.keep(number) == []


def test_keep_counts_only_manifests_that_count(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=5)
    store.create_fence(2, incarnation=2)
    store.name_parent(2, line[2].ref)
    assert store.keep(2) == []
    assert store.history() == [m.ref for m in line[:3]]
    late = commit_line(store, 2, parent=line[2], count=4)
    assert set(store.keep(2)) == {m.ref for m in [*line[1:5], *late[:2]]}
    assert store.manifests() == [line[0].ref, late[2].ref, late[3].ref]


def test_keep_leaves_a_blob_that_a_kept_checkpoint_shares(store: CheckpointStore) -> None:
    commit_line(store, 1, count=1)
    progress = BEGIN
    for _ in range(4):
        progress = extend(store, progress)
        store.put_manifest(make_manifest(store, 1, progress, content=b"idle"))
    store.keep(2)
    assert store.read_blob(store.find(None).blob) == b"idle"


def age(store: CheckpointStore, blob: Blob, seconds: float) -> None:
    path = store.files._root / "blobs" / f"{blob.sha256}.safetensors"
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def test_keep_leaves_a_blob_that_is_being_published(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=5)
    fresh = store.put_blob(b"being published")
    again = store.put_blob(line[1].progress.log_hash.encode())  # the content of one that is deleted now
    age(store, again, -1)
    store.keep(2)
    assert store.read_blob(fresh) == b"being published"
    assert store.read_blob(again) == line[1].progress.log_hash.encode()


def test_keep_collects_old_orphans_and_unfinished_files(store: CheckpointStore) -> None:
    commit_line(store, 1, count=3)
    orphan = store.put_blob(b"of a killed writer")
    age(store, orphan, 8000)
    for name, seconds in (("old", 8000), ("new", 0)):
        path = store.files._root / "unfinished" / name
        path.touch()
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)
    store.keep(2)
    assert [path.name for path in paths(store, "unfinished")] == ["new"]
    with pytest.raises(CorruptError, match="missing"):
        store.read_blob(orphan)


def test_keep_with_corrupt_manifests_goes_on(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=6)
    for index in (0, 2, 5):
        paths(store, "manifests")[index].write_bytes(b"torn")
    assert store.keep(2) == [line[1].ref, line[2].ref]
    for index in (3, 4):
        store.verify(line[index])


def test_keep_deletes_no_sound_checkpoint_because_of_newer_ones_that_are_not(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=6)
    for manifest in line[3:]:
        (store.files._root / "blobs" / f"{manifest.blob.sha256}.safetensors").unlink()
    assert store.keep(2) == []
    assert store.find(line[2].name) == line[2]
    store.verify(line[2])


def test_pinned_checkpoint_is_kept_whole_until_it_is_unpinned(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=3)
    store.pin(line[1].ref)
    store.pin(line[1].ref)
    line += commit_line(store, 1, count=30, parent=line[-1], keep=2)
    assert store.manifests() == [line[0].ref, line[1].ref, line[-2].ref, line[-1].ref]
    store.verify(line[1])
    store.unpin(line[1].ref)
    assert store.keep(2) == [line[1].ref]


def test_pin_of_a_checkpoint_that_is_gone_is_not_found_and_leaves_nothing(store: CheckpointStore) -> None:
    line = commit_line(store, 1, count=4)
    hooks: list[str] = []

    def hook(operation: str, name: str) -> None:
        if operation == "create" and not hooks:  # the owner deletes it between the look at it and the pin
            hooks.append(name)
            store.keep(2)

    with pytest.raises(NotFoundError):
        CheckpointStore(HookedFiles(store.files._root, hook)).pin(line[1].ref)
    assert hooks
    assert store.pins() == set()


def test_keep_interrupted_anywhere_leaves_every_named_blob(tmp_path: Path) -> None:
    """Killed before any one of its operations, it deletes no blob that a manifest names, and can be made again."""
    for stop in range(100):
        root = tmp_path / str(stop)
        line = commit_line(open_store(root), 1, count=6)
        left = iter(range(stop))

        def hook(operation: str, name: str, left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise StorageError("stopped here")

        store = open_store(root)
        try:
            CheckpointStore(HookedFiles(root, hook)).keep(2)
        except StorageError:
            for ref in store.manifests():
                store.verify(store.read_manifest(ref))
            store.keep(2)
            assert store.manifests() == [line[0].ref, line[4].ref, line[5].ref]
        else:
            return
    pytest.fail("keep never came to its end")
