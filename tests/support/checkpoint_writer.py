"""A process that takes a job's folder over and writes checkpoints.

python -m tests.support.checkpoint_writer FOLDER INCARNATION        until it is killed
python -m tests.support.checkpoint_writer FOLDER INCARNATION full   until the disk is full; then what it sees, as JSON
python -m tests.support.checkpoint_writer FOLDER INCARNATION ro     three, then once more on a disk made read-only
"""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

from dtrain.checkpoint.attempts import claim
from dtrain.checkpoint.commit import commit
from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import StorageError
from tests.support.checkpoints import BEGIN, extend, make_manifest


def nothing() -> None:
    pass


def write_next(store: CheckpointStore, attempt: int, parent: Manifest | None, *, num_bytes: int, keep: int) -> Manifest:
    progress = extend(store, parent.progress) if parent else BEGIN
    manifest = make_manifest(store, attempt, progress, content=random.Random(progress.log_hash).randbytes(num_bytes))
    commit(store, manifest=manifest, keep=keep, before=nothing, after=nothing)
    return manifest


def write_until_it_fails(store: CheckpointStore, attempt: int, *, limit: int) -> tuple[Manifest, str, bool]:
    """Up to `limit` checkpoints, none deleted: the last durable one, and the error after it with whether it is retriable."""
    parent = write_next(store, attempt, None, num_bytes=50_000, keep=10_000)
    for _ in range(limit - 1):
        try:
            parent = write_next(store, attempt, parent, num_bytes=50_000, keep=10_000)
        except StorageError as error:
            return parent, str(error), error.retriable
    return parent, "", False


def report_full(folder: Path, incarnation: int) -> dict[str, object]:
    """Fill the disk, look, free some space, go on."""
    store = open_store(folder)
    attempt = claim(store, incarnation=incarnation, on_skip=print)
    parent, error, is_retriable = write_until_it_fails(store, attempt.number, limit=200)
    newest = store.find(None)
    store.verify(newest)
    unfinished = [path.name for path in (folder / "unfinished").iterdir()]
    shutil.rmtree(folder.parent / "filler")
    after = write_next(store, attempt.number, parent, num_bytes=50_000, keep=2)
    store.verify(after)
    return {
        "error": error,
        "is_retriable": is_retriable,
        "is_intact": newest == parent,
        "unfinished": unfinished,
        "goes_on": store.find(None) == after,
    }


def report_read_only(folder: Path, incarnation: int) -> dict[str, object]:
    """Three checkpoints, and a fourth that cannot be written."""
    store = open_store(folder)
    attempt = claim(store, incarnation=incarnation, on_skip=print)
    parent, _, _ = write_until_it_fails(store, attempt.number, limit=3)
    subprocess.run(["mount", "-o", "remount,ro", folder.parent], check=True)
    errors = []
    for call in (
        lambda: write_next(store, attempt.number, parent, num_bytes=10, keep=2),
        lambda: claim(store, incarnation=incarnation, on_skip=print),
    ):
        try:
            call()
        except StorageError as error:
            errors.append(str(error))
    store.verify(store.find(None))
    return {"errors": errors, "is_intact": store.find(None) == parent}


def main() -> None:
    folder, incarnation, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
    if mode:
        print(json.dumps((report_full if mode == "full" else report_read_only)(folder, incarnation)))
        return
    store = open_store(folder)
    attempt = claim(store, incarnation=incarnation, on_skip=print)
    parent = attempt.parent
    while True:
        parent = write_next(store, attempt.number, parent, num_bytes=300_000, keep=2)


if __name__ == "__main__":
    main()
