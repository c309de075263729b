"""faults.md, row 15: an object store that fails, is slow, sends half, loses replies, lists what was."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from dtrain.checkpoint.attempts import claim, is_fenced
from dtrain.checkpoint.commit import commit
from dtrain.checkpoint.objects import ObjectFiles
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import FencedError, StorageError
from tests.support.checkpoints import commit_line, commit_next, extend, make_manifest
from tests.support.object_store import BUCKET, SECRET, ObjectStore, object_store


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture
def place(server: ObjectStore) -> str:
    server.faults.clear()
    server.happened.clear()
    return f"s3://{BUCKET}/{uuid4().hex}"


@pytest.fixture
def store(place: str) -> CheckpointStore:
    return CheckpointStore(ObjectFiles.open(place, patience_s=10))


def take_over(store: CheckpointStore, incarnation: int) -> int:
    return claim(store, incarnation=incarnation, on_skip=pytest.fail).number


@pytest.mark.parametrize("kind", ["500", "503", "slow", "cut", "lost"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE|POST"])
def test_faults_that_pass_are_not_seen(store: CheckpointStore, server: ObjectStore, kind: str, method: str) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=2)
    for _ in range(3):
        server.will(method, "", times=3)
        server.will(method, kind)
    line += commit_line(store, 1, parent=line[-1], count=3, keep=2)
    assert any(fault.startswith(kind) for fault in server.happened)
    assert store.history() == [line[0].ref, line[3].ref, line[4].ref]
    for ref in store.history():
        store.verify(store.read_manifest(ref))


@pytest.mark.parametrize("what", ["blobs/", "segments/", "manifests/"])
@pytest.mark.parametrize("kind", ["500", "cut"])
def test_store_that_is_down_is_given_up_and_shows_no_half_checkpoint(
    store: CheckpointStore, place: str, server: ObjectStore, what: str, kind: str
) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=3)
    hasty = CheckpointStore(ObjectFiles.open(place, patience_s=1))
    server.will(f"(PUT|POST).*{what}" if kind == "500" else f"GET.*{what}", kind, times=1000)
    with pytest.raises(StorageError) as raised:
        commit_next(hasty, 1, line[-1]) if kind == "500" else hasty.verify(hasty.read_manifest(line[-1].ref))
    assert raised.value.retriable
    assert SECRET not in str(raised.value)
    server.faults.clear()
    assert store.history() == [m.ref for m in line]
    assert take_over(store, 2) == 2
    assert commit_next(store, 2, line[-1]).progress.plan_number == 6


def test_lists_that_are_late_hide_no_fence(store: CheckpointStore, server: ObjectStore) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=2)
    assert not is_fenced(store, 1)
    store.fences()
    server.will("list-type.*fences", "stale", times=1000)
    assert take_over(store, 2) == 2
    assert take_over(store, 3) == 3
    assert is_fenced(store, 1)
    late = make_manifest(store, 1, extend(store, line[1].progress))
    with pytest.raises(FencedError):
        commit(store, manifest=late, keep=2, before=lambda: None, after=lambda: pytest.fail("an effect of a fenced attempt"))
    assert store.history() == [m.ref for m in line]


def test_lists_that_are_late_show_no_half_checkpoint(store: CheckpointStore, server: ObjectStore) -> None:
    take_over(store, 1)
    line = commit_line(store, 1, count=4)
    store.manifests()
    store.files.modified("blobs")
    server.will("list-type.*(manifests|blobs|segments)", "stale", times=1000)
    line += commit_line(store, 1, parent=line[-1], count=3, keep=2)
    server.faults.clear()
    for ref in store.history():
        store.verify(store.read_manifest(ref))
    assert store.find(None) == line[-1]


def test_bucket_that_is_not_there_is_not_called_corrupt(server: ObjectStore) -> None:
    store = CheckpointStore(ObjectFiles.open("s3://no-such-bucket/job", patience_s=3))
    for call in (store.history, lambda: store.files.read("manifests/x")):
        with pytest.raises(StorageError, match="look at the bucket"):
            call()
