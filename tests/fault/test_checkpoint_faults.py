"""faults.md, rows 12, 13, 16: full and read-only disks, and kills while writing."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import NotFoundError

WRITER = [sys.executable, "-m", "tests.support.checkpoint_writer"]


@contextmanager
def writer(folder: Path, incarnation: int) -> Iterator[subprocess.Popen[str]]:
    """A process that writes checkpoints; killed on leaving. Whatever it says is a failure."""
    process = subprocess.Popen([*WRITER, folder, str(incarnation)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        said, _ = process.communicate()
    assert said == ""


def wait_for_manifest(store: CheckpointStore, process: subprocess.Popen[str], *, attempt: int) -> None:
    deadline = time.monotonic() + 90
    while not any(ref.attempt == attempt for ref in store.manifests()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint within 90 s"
        time.sleep(0.001)


def test_writer_killed_20_times_leaves_a_sound_newest_checkpoint(tmp_path: Path) -> None:
    store, rng, reached = open_store(tmp_path / "job"), random.Random(13), -1
    for incarnation in range(1, 21):
        with writer(tmp_path / "job", incarnation) as process:
            wait_for_manifest(store, process, attempt=incarnation)
            time.sleep(rng.uniform(0, 0.03))
        newest = store.find(None)
        store.verify(newest)
        assert newest.ref.attempt == incarnation
        assert newest.progress.plan_number > reached
        reached = newest.progress.plan_number
        for ref in store.history():
            store.verify(store.read_manifest(ref))
    blobs = list((tmp_path / "job" / "blobs").iterdir())
    assert len(blobs) <= 3 + 2 * 20, "a kill leaves at most what it was writing and what it was deleting"


def test_checkpoints_read_while_others_are_written_and_deleted_are_sound_or_gone(tmp_path: Path) -> None:
    store, sound, gone = open_store(tmp_path / "job"), 0, 0
    with writer(tmp_path / "job", 1) as process:
        wait_for_manifest(store, process, attempt=1)
        deadline = time.monotonic() + 90
        while (sound < 40 or gone < 5) and time.monotonic() < deadline:
            for ref in store.history():
                time.sleep(0.002)  # a slow reader: let the writer delete what it looks at
                try:
                    store.verify(store.read_manifest(ref))
                    sound += 1
                except NotFoundError:
                    gone += 1
    assert sound >= 40
    assert gone >= 5


def run_on_small_disk(disk: Path, *, options: str, mode: str) -> dict[str, object]:
    """The writer's report from a file system of its own, which ends with the process."""
    disk.mkdir()
    filler = "mkdir $0/filler && for i in 0 1 2 3 4 5 6 7 8 9; do head -c 30000 /dev/zero > $0/filler/$i || exit; done"
    script = f"mount -t tmpfs -o {options} none $0 && {filler} && exec $@"
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*namespace, "mount -t tmpfs none $0", disk], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a disk of our own")
    done = subprocess.run(
        [*namespace, script, disk, *WRITER, disk / "job", "1", mode], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("options", ["size=2m", "size=20m,nr_inodes=60"])
def test_full_disk_leaves_the_old_checkpoint_and_goes_on_when_there_is_room(tmp_path: Path, options: str) -> None:
    report = run_on_small_disk(tmp_path / "disk", options=options, mode="full")
    assert "No space left on device; free space there" in str(report.pop("error"))
    assert report == {"is_retriable": True, "is_intact": True, "unfinished": [], "goes_on": True}


def test_read_only_disk_can_be_read_and_says_why_it_cannot_be_written(tmp_path: Path) -> None:
    report = run_on_small_disk(tmp_path / "disk", options="size=2m", mode="ro")
    errors = report["errors"]
    assert isinstance(errors, list)
    assert ["Read-only file system; mount it for writing" in text for text in errors] == [True, True]
    assert report["is_intact"]


def test_file_size_limit_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """The same without any privilege: the kernel refuses the blob's bytes in the middle."""
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.support.checkpoint_writer import *\n"
        "store = open_store(Path(sys.argv[1]))\n"
        "first = write_next(store, 1, None, num_bytes=10_000, keep=2)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    write_next(store, 1, first, num_bytes=100_000, keep=2)\n"
        "except StorageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "job"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "File too large" in done.stdout
    store = open_store(tmp_path / "job")
    store.verify(store.find(None))
    assert not list((tmp_path / "job" / "unfinished").iterdir())
