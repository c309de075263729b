"""The ledger's log is whole, whatever a replica has heard of earlier checkpoints."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.checkpoint.locks import settle_lock
from dtrain.checkpoint.manifest import Blob, Snapshot
from dtrain.checkpoint.store import CheckpointStore
from dtrain.clock import SystemClock
from dtrain.errors import DriftError
from dtrain.packages.lock import Lock, Pin, digest_of_lock
from dtrain.runtime.ledger import Ledger, Origin
from dtrain.spec.job import JobSpec
from dtrain.steplog import segments
from dtrain.steplog.entries import Entry
from dtrain.steplog.progress import Progress
from tests.support.checkpoints import BEGIN, next_entries
from tests.support.memory_files import MemoryFiles
from tests.support.ranks import spec


class Writer:
    """What a replica keeps of its log, and the snapshots that it writes."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store, self.progress, self.tail = store, BEGIN, list[Entry]()

    def snapshot(self) -> Snapshot:
        for entry in next_entries(self.progress):
            self.progress = self.progress.apply(entry)
            self.tail.append(entry)
        blob = Blob.of([self.progress.log_hash.encode()])
        self.store.put_blob(self.progress.log_hash.encode())
        return Snapshot(self.progress.seal(self.store.put_segment(self.tail)), blob, {})

    def hear(self, durable: Progress) -> None:
        self.progress = replace(self.progress, segments=durable.segments)
        self.tail = [entry for entry in self.tail if entry.number > durable.plan_number]


def claim(store: CheckpointStore) -> Ledger:
    return Ledger.open(store, spec(numerics="fast"), job_id="job", incarnation=1, accept_code_change=False, clock=SystemClock())


@settings(max_examples=40, deadline=None)
@given(happenings=st.lists(st.sampled_from(["heard", "not heard", "damaged", "taken over"]), max_size=60))
def test_log_is_whole_whatever_the_replica_has_heard(happenings: list[str]) -> None:
    files = MemoryFiles()
    store = CheckpointStore(files)
    writer, ledger = Writer(store), claim(store)
    ledger.begin(Snapshot(BEGIN, store.put_blob(b"genesis"), {}), origin=Origin({}, None), schema={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "FANOUT", 3)
        patch.setattr(segments, "JOINED_BYTES", 700)
        for happening in happenings:
            durable = ledger.commit(writer.snapshot(), flush_rejects=lambda _: None, give_back=lambda _: None)
            store.verify(durable)
            if happening in {"heard", "damaged"}:
                writer.hear(durable.progress)
            if happening == "damaged" and len(store.history()) > 2:  # found by the next attempt, which begins before it
                files.contents[f"blobs/{durable.blob.sha256}.safetensors"] = b"torn"
                ledger = claim(store)
            elif happening == "taken over":
                ledger = claim(store)
    for ref in store.history():
        assert [entry.number for entry in store.entries(store.read_manifest(ref).progress)] == list(
            range(1, ref.plan_number + 1)
        )


def test_checkpoint_of_a_job_that_this_dtrain_does_not_take_is_no_parent_for_it() -> None:
    store = CheckpointStore(MemoryFiles())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobSpec, "to_json", lambda _: '{"name": "job", "later": 1}')
        claim(store).begin(Snapshot(BEGIN, store.put_blob(b"genesis"), {}), origin=Origin({}, None), schema={})
    with pytest.raises(DriftError, match="none that this dtrain knows"):
        claim(store)


def test_other_packages_are_other_code_and_the_notes_name_them() -> None:
    store = CheckpointStore(MemoryFiles())
    locks = [Lock(("probe",), (Pin("probe", version, ("sha256:00",)),)) for version in ("1.0", "2.0")]

    def opened(lock: Lock | None, **options: bool) -> Ledger:
        text = settle_lock(store, digest_of_lock(lock.to_json()), lock.to_json()) if lock is not None else ""
        options = {"accept_code_change": False, **options}
        return Ledger.open(store, spec(numerics="fast"), job_id="job", incarnation=1, clock=SystemClock(), lock=text, **options)

    first = opened(locks[0])
    manifest = first.begin(Snapshot(BEGIN, store.put_blob(b"genesis"), {}), origin=Origin({}, None), schema={})
    assert store.find(None).lock_sha256 == manifest.lock_sha256 == locks[0].sha256
    assert opened(locks[0]).notes == []
    with pytest.raises(DriftError, match=r"probe 1\.0 → 2\.0"):
        opened(locks[1])
    second = opened(locks[1], accept_code_change=True)
    assert second.notes == [f"packages changed behind checkpoint {manifest.name}: probe 1.0 → 2.0"]
    assert len({first.program_sha256, second.program_sha256, first.code_sha256}) == 3
    assert opened(None, accept_code_change=True).notes == [
        f"packages changed behind checkpoint {manifest.name}: probe 1.0 → none"
    ]
