"""What every kind of files does (`dtrain.checkpoint.files.Files`)."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from dtrain.checkpoint.files import Files, LocalFiles
from dtrain.checkpoint.objects import ObjectFiles
from dtrain.checkpoint.places import open_store
from dtrain.errors import NotFoundError
from tests.support.checkpoints import commit_line
from tests.support.memory_files import MemoryFiles
from tests.support.object_store import BUCKET, ObjectStore, object_store


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture(params=["local", "memory", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "local":
        return LocalFiles(tmp_path / "job")
    if request.param == "memory":
        return MemoryFiles()
    request.getfixturevalue("server")
    return ObjectFiles.open(f"s3://{BUCKET}/{uuid4().hex}/job", patience_s=5)


def test_create_of_a_free_name_writes_it(files: Files) -> None:
    assert files.create("a/x", b"1")
    assert files.read("a/x") == b"1"


def test_create_of_a_taken_name_changes_nothing(files: Files) -> None:
    files.create("a/x", b"1")
    assert not files.create("a/x", b"2")
    assert files.read("a/x") == b"1"


def test_create_by_many_threads_has_one_winner_whose_content_is_whole(files: Files) -> None:
    contents = [bytes([number]) * 10_000 for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda content: files.create("a/x", content), contents))
    assert won.count(True) == 1
    assert files.read("a/x") == contents[won.index(True)]


def test_put_replaces_what_was_there(files: Files) -> None:
    files.put("a/x", b"1")
    files.put("a/x", b"2", memoryview(b"34"), b"")
    assert files.read("a/x") == b"234"


def test_put_of_parts_larger_than_an_upload_is_whole(files: Files) -> None:
    parts = [b"head", memoryview(os.urandom(40 * 2**20)), b"", os.urandom(7)]
    files.put("blobs/x", *parts)
    assert files.read("blobs/x") == b"".join(parts)
    whole = MemoryFiles()
    whole.put("x", *parts)
    assert files.digest("blobs/x") == whole.digest("x")


def test_empty_content_is_a_content(files: Files) -> None:
    assert files.create("pins/x", b"")
    assert files.read("pins/x") == b""
    assert files.modified("pins").keys() == {"x"}


def test_read_and_digest_of_a_missing_name_are_not_found(files: Files) -> None:
    files.put("a/x", b"1")
    for call in (files.read, files.digest):
        with pytest.raises(NotFoundError):
            call("a/y")


def test_modified_names_a_folder_and_nothing_beside_it(files: Files) -> None:
    assert files.modified("a") == {}
    for number in range(1200 if isinstance(files, MemoryFiles) else 12):
        files.create(f"a/{number}", b"")
    files.put("ab/z", b"")
    found = files.modified("a")
    assert len(found) == len({int(name) for name in found})
    assert files.modified("ab").keys() == {"z"}


def test_delete_of_a_seen_name_removes_it_and_may_be_repeated(files: Files) -> None:
    files.put("a/x", b"1")
    seen_s = files.modified("a")["x"]
    assert files.delete("a/x", seen_s=seen_s)
    assert files.modified("a") == {}
    assert files.delete("a/x", seen_s=seen_s)
    assert files.delete("a/x")


def test_delete_leaves_what_was_written_again(files: Files) -> None:
    files.put("a/x", b"1")
    assert not files.delete("a/x", seen_s=files.modified("a")["x"] - 1.0)
    assert files.read("a/x") == b"1"


def test_sweep_leaves_what_has_a_name(files: Files) -> None:
    files.put("a/x", b"1")
    files.sweep(before_s=files.modified("a")["x"] + 10)
    assert files.read("a/x") == b"1"


def test_place_in_a_bucket_holds_checkpoints_as_a_folder_does(server: ObjectStore) -> None:
    store = open_store(f"s3://{BUCKET}/prefix/job-1")
    line = commit_line(store, 1, count=5, keep=2)
    assert store.manifests() == [line[0].ref, line[3].ref, line[4].ref]
    for ref in store.manifests():
        store.verify(store.read_manifest(ref))
    assert open_store(f"s3://{BUCKET}/prefix/job-2").manifests() == []
