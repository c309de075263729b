import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from dtrain.checkpoint import manifest as manifests
from dtrain.checkpoint.attempts import Attempt, claim, is_fenced
from dtrain.checkpoint.commit import commit
from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import CorruptError, FencedError, StateError, StorageError
from tests.support.checkpoints import BEGIN, commit_line, commit_next, extend, make_manifest
from tests.support.faulty_files import HookedFiles


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return open_store(tmp_path / "job")


def take_over(store: CheckpointStore, incarnation: int, skipped: list[str] | None = None) -> Attempt:
    return claim(store, incarnation=incarnation, on_skip=[].append if skipped is None else skipped.append)


def spoil(store: CheckpointStore, name: str) -> None:
    path = store.files._root / name
    path.write_bytes(path.read_bytes()[:-1])


def test_claim_of_a_new_job_begins_at_the_beginning(store: CheckpointStore) -> None:
    assert take_over(store, 1) == Attempt(1, None)


def test_claim_begins_from_the_newest_checkpoint(store: CheckpointStore) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=3)
    assert take_over(store, 2) == Attempt(2, line[2])
    assert is_fenced(store, 1)
    assert not is_fenced(store, 2)


def test_claim_by_the_same_incarnation_is_another_attempt(store: CheckpointStore) -> None:
    assert [take_over(store, 1).number for _ in range(3)] == [1, 2, 3]


def test_claim_by_a_lower_incarnation_is_fenced_and_leaves_no_trace(store: CheckpointStore) -> None:
    take_over(store, 2)
    with pytest.raises(FencedError):
        take_over(store, 1)
    assert store.attempts() == [1]


def test_manifest_written_after_a_takeover_does_not_count(store: CheckpointStore) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=2)
    take_over(store, 2)
    late = make_manifest(store, 1, extend(store, line[1].progress))
    with pytest.raises(FencedError):
        commit(store, manifest=late, keep=2, before=lambda: None, after=lambda: pytest.fail("an effect of a fenced attempt"))
    assert store.history() == [m.ref for m in line]
    assert take_over(store, 3).parent == line[1]


def test_claim_voids_a_lower_fence_that_named_no_parent(store: CheckpointStore) -> None:
    store.create_fence(1, incarnation=1)
    attempt = take_over(store, 2)
    assert store.fences()[1].is_void
    assert not store.name_parent(1, None)
    first = commit_next(store, attempt.number, None)
    assert store.history() == [first.ref]


@pytest.mark.parametrize("victim", ["manifest", "blob", "segment"])
@pytest.mark.parametrize("fault", ["cut", "gone"])
def test_claim_passes_over_a_corrupt_checkpoint_and_says_so(store: CheckpointStore, victim: str, fault: str) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=4)
    for manifest in line[2:]:
        segment = manifest.progress.segments[-1]
        name = {
            "manifest": f"manifests/{manifest.name}.json",
            "blob": f"blobs/{manifest.blob.sha256}.safetensors",
            "segment": f"segments/{segment.sha256}.jsonl",
        }[victim]
        spoil(store, name) if fault == "cut" else (store.files._root / name).unlink()
    skipped: list[str] = []
    assert take_over(store, 2, skipped).parent == line[1]
    expected = [] if (victim, fault) == ("manifest", "gone") else [line[3].name, line[2].name]
    assert [name for name, text in zip(expected, skipped, strict=True) if name in text] == expected
    assert store.history() == [line[0].ref, line[1].ref]


@pytest.mark.parametrize("what", ["manifest", "log entry"])
def test_claim_does_not_pass_over_a_checkpoint_of_another_dtrain(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=3)
    progress = extend(store, line[-1].progress)
    if what == "log entry":
        *known, newest = progress.segments
        content = store.files.read(f"segments/{newest.sha256}.jsonl").replace(b'"checkpoint"', b'"set"')
        newest = replace(newest, sha256=hashlib.sha256(content).hexdigest(), num_bytes=len(content))
        store.files.put(f"segments/{newest.sha256}.jsonl", content)
        progress = replace(progress, segments=(*known, newest))
    with monkeypatch.context() as newer:
        newer.setattr(manifests, "FORMAT", 2 if what == "manifest" else manifests.FORMAT)
        store.put_manifest(make_manifest(store, 1, progress))
    with pytest.raises(StateError, match="written by another dtrain") as caught:
        take_over(store, 2)
    assert not isinstance(caught.value, FencedError)
    assert not any(fence.parent for fence in store.fences().values())


def test_claim_with_no_sound_checkpoint_refuses_to_start_from_zero(store: CheckpointStore) -> None:
    take_over(store, 1)
    for manifest in commit_line(store, 1, count=2):
        spoil(store, f"manifests/{manifest.name}.json")
    for _ in range(2):
        with pytest.raises(CorruptError, match="none of the job's 2 checkpoints is sound"):
            take_over(store, 2)
    assert not any(fence.is_named for fence in store.fences().values() if fence.attempt > 1)


def test_claim_after_all_manifests_vanished_refuses_to_start_from_zero(store: CheckpointStore) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=2)
    take_over(store, 2)
    for manifest in line:
        (store.files._root / f"manifests/{manifest.name}.json").unlink()
    with pytest.raises(CorruptError, match="now there is none"):
        take_over(store, 3)


@pytest.mark.parametrize("name", ["manifests/", "blobs/", "segments/"])
def test_claim_with_an_unreadable_file_is_not_a_fallback(store: CheckpointStore, name: str) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=3)

    def hook(operation: str, path: str) -> None:
        if operation in {"read", "digest"} and path.startswith(name):
            raise StorageError("input/output error")

    root = store.files._root
    with pytest.raises(StorageError):
        take_over(CheckpointStore(HookedFiles(root, hook)), 2)
    assert take_over(store, 2).parent == line[2]


def test_claim_voided_before_it_named_its_parent_is_fenced(store: CheckpointStore) -> None:
    root = store.files._root

    def hook(operation: str, path: str) -> None:
        if (operation, path) == ("create", "fences/n00000001.parent.json"):
            files.hook = lambda *_: None
            take_over(store, 2)

    files = HookedFiles(root, hook)
    with pytest.raises(FencedError, match="closed attempt 1"):
        take_over(CheckpointStore(files), 1)


def test_commit_flushes_before_and_acts_after_the_manifest(store: CheckpointStore) -> None:
    take_over(store, 1)
    manifest = make_manifest(store, 1, BEGIN)
    seen: list[int] = []
    commit(
        store,
        manifest=manifest,
        keep=2,
        before=lambda: seen.append(len(store.manifests())),
        after=lambda: seen.append(len(store.manifests())),
    )
    assert seen == [0, 1]


def test_commit_whose_flush_fails_writes_no_manifest(store: CheckpointStore) -> None:
    def fail() -> None:
        raise StorageError("broker away")

    with pytest.raises(StorageError):
        commit(
            store,
            manifest=make_manifest(store, 1, BEGIN),
            keep=2,
            before=fail,
            after=lambda: pytest.fail("an effect without a manifest"),
        )
    assert store.manifests() == []


def test_commit_overtaken_during_its_effects_deletes_nothing(store: CheckpointStore) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=4)
    manifest = make_manifest(store, 1, extend(store, line[3].progress))
    with pytest.raises(FencedError):
        commit(store, manifest=manifest, keep=2, before=lambda: None, after=lambda: take_over(store, 2))
    assert len(store.manifests()) == 5


def test_commit_keeps_as_many_as_asked(store: CheckpointStore) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=6, keep=3)
    assert store.manifests() == [line[0].ref, *[m.ref for m in line[3:]]]


def test_commit_that_cannot_delete_old_checkpoints_stands_and_says_so(store: CheckpointStore) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=3)
    manifest = make_manifest(store, 1, extend(store, line[2].progress))

    def hook(operation: str, path: str) -> None:
        if operation == "delete":
            raise StorageError("no permission")

    failing = CheckpointStore(HookedFiles(store.files._root, hook))
    error = commit(failing, manifest=manifest, keep=2, before=lambda: None, after=lambda: None)
    assert isinstance(error, StorageError)
    assert store.find(None) == manifest


def test_fences_that_are_settled_are_read_once_however_many_there_are(store: CheckpointStore) -> None:
    for number in range(1, 31):
        take_over(store, number)
    names: list[str] = []
    counted = CheckpointStore(HookedFiles(store.files._root, lambda operation, name: names.append(f"{operation} {name}")))
    line = commit_line(counted, take_over(counted, 31).number, count=3)
    assert take_over(counted, 32).parent == line[-1]
    for number in range(1, 31):
        assert names.count(f"read fences/n{number:08d}.json") == names.count(f"read fences/n{number:08d}.parent.json") == 1


def test_commit_beside_a_checkpoint_of_another_dtrain_that_does_not_count_deletes_nothing_and_stands(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=4)
    take_over(store, 2)
    with monkeypatch.context() as newer:
        newer.setattr(manifests, "FORMAT", 2)
        store.put_manifest(make_manifest(store, 1, extend(store, line[3].progress)))
    late = make_manifest(store, 2, extend(store, line[3].progress, rows=5))
    assert isinstance(commit(store, manifest=late, keep=2, before=lambda: None, after=lambda: None), StateError)
    assert len(store.manifests()) == 6
    assert store.find(None) == late
