"""Replay says what it proves: equal, where not, and how far `fast` can promise anything."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dtrain.checkpoint.attempts import claim
from dtrain.checkpoint.places import open_store
from dtrain.errors import DriftError, InputError
from dtrain.local import run
from dtrain.replay.replay import FAST_WINDOW, _some, replay
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.fences import ManifestRef
from dtrain.stream.memory import MemorySource, MemoryTopic
from tests.support.audit import CODE, audit_spec, id_messages

NUM_IDS, ROWS = 3_000, 10


@pytest.fixture(params=["fast", "exact"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> JobSpec:
    return audit_spec(
        topic="ids",
        bootstrap="nowhere:1",
        folder=tmp_path,
        num_ids=NUM_IDS,
        ends={0: NUM_IDS // 20},
        batch={"rows": ROWS},
        train={"numerics": request.param},
        checkpoint={"every": 3600},
    )


@pytest.fixture
def source(spec: JobSpec, tmp_path: Path) -> MemorySource:
    """Of the job, which has come to its end."""
    topic = MemoryTopic("ids")
    for message in id_messages(NUM_IDS, rows=20):
        topic.append(message)
    run(spec, folder=tmp_path / "job", on_status=lambda *_: None, should_stop=lambda: False, source=_over(spec, topic))
    return _over(spec, topic)


def _over(spec: JobSpec, topic: MemoryTopic) -> MemorySource:
    return MemorySource(spec.source, {"ids": topic})


def test_replay_of_the_same_rows_is_equal_and_tells_how_far_it_is(spec: JobSpec, source: MemorySource, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    verdict = replay(open_store(tmp_path / "job"), source=source, on_progress=lambda *what: told.append(what))
    assert verdict.is_equal, verdict.sentence
    assert (verdict.steps, verdict.rows, verdict.numerics) == (NUM_IDS // ROWS, NUM_IDS, spec.train.numerics)
    steps = [done for what, done, of in told if what == "replay" and of == verdict.steps]
    assert steps == sorted(steps)
    assert steps[-1] == verdict.steps
    assert len(steps) >= verdict.steps // 64
    assert verdict.is_same_code
    assert verdict.to_json()["audit"] == asdict(verdict.audit)


def test_replay_with_code_that_computes_otherwise_is_not_equal(
    spec: JobSpec, source: MemorySource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "audit_task")  # as in another process
    other = tmp_path / "other"
    shutil.copytree(CODE, other)
    path = other / "audit_task.py"
    path.write_text(path.read_text().replace("outputs.squeeze(1)", "1.001 * outputs.squeeze(1)"))
    verdict = replay(open_store(tmp_path / "job"), source=source, code=str(other))
    assert not verdict.is_equal
    assert "tensor model/weight" in verdict.first_difference
    assert verdict.difference == pytest.approx(1e-3, rel=0.1)
    assert verdict.longest_window > FAST_WINDOW
    assert "the code is not the one that the job had there" in verdict.sentence
    assert ("`fast` promises nothing beyond 100" in verdict.sentence) == (spec.train.numerics == "fast")


def test_replay_passes_by_a_checkpoint_in_between_that_is_corrupt(source: MemorySource, tmp_path: Path) -> None:
    store = open_store(tmp_path / "job")
    last = store.find(None).ref
    torn = ManifestRef(last.attempt, last.plan_number - 1)
    store.files.put(f"manifests/{torn.name}.json", b"torn")
    assert torn in store.history()
    verdict = replay(store, source=source)
    assert verdict.is_equal, verdict.sentence


def test_replay_to_a_checkpoint_that_does_not_count_is_refused(source: MemorySource, tmp_path: Path) -> None:
    store = open_store(tmp_path / "job")
    first, last = (store.read_manifest(ref) for ref in store.history())
    claim(store, incarnation=9, on_skip=lambda _: None)
    fork = ManifestRef(last.ref.attempt, last.ref.plan_number + 1)
    store.put_manifest(replace(last, ref=fork, progress=replace(last.progress, plan_number=fork.plan_number)))
    with pytest.raises(InputError, match=f"checkpoint {fork.name} does not count"):
        replay(store, source=source, to=fork.name)
    with pytest.raises(InputError, match=f"checkpoint {last.name} is later than {first.name}"):
        replay(store, source=source, start=last.name, to=first.name)


@pytest.mark.parametrize("spec", ["exact"], indirect=True)
def test_replay_past_a_checkpoint_of_another_build_is_refused_where_it_would_have_to_be_equal(
    source: MemorySource, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "job")
    last = store.find(None)
    ref = ManifestRef(last.ref.attempt, last.ref.plan_number - 1)
    progress = replace(last.progress, plan_number=ref.plan_number)
    store.put_manifest(replace(last, ref=ref, progress=progress, numerics={**last.numerics, "torch": "0.1"}))
    with pytest.raises(DriftError, match=r"torch: 0\.1 then"):
        replay(store, source=source)


def test_replay_reads_ahead_by_rows_not_by_steps_alone() -> None:
    def taken(num_rows: int) -> int:
        return len(list(_some(Entry(n, StepKind.DATA, num_rows=num_rows) for n in range(1, 1000))))

    assert [taken(n) for n in (0, 10, 512, 4096, 10**6)] == [64, 64, 32, 4, 1]
