"""A whole job in one process, over a topic in memory."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dtrain.checkpoint.locks import read_lock
from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import AuthError
from dtrain.job.status import Observation, Outcome
from dtrain.local import run
from dtrain.packages.lock import Lock
from dtrain.replay.replay import Verdict, replay
from dtrain.spec.job import JobSpec
from dtrain.stream.memory import MemoryLog, MemorySource, MemoryTopic
from tests.support.audit import CODE, audit_spec, id_messages, times_trained
from tests.support.packages import offer

NUM_IDS = 2_000


class QuickClock:
    """A tenth of a second passes whenever somebody looks: there is a report every few steps."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += 0.1
        return self._now_s

    def wall_s(self) -> float:
        return self._now_s

    def sleep(self, duration_s: float) -> None:
        self._now_s += duration_s


def _topic() -> MemoryTopic:
    topic = MemoryTopic("ids")
    for message in id_messages(NUM_IDS, rows=20):
        topic.append(message)
    return topic


def _run(folder: Path, *, topic: MemoryTopic | None = None, is_changed: bool = False, **changes: Any) -> Observation:
    topic = topic or _topic()
    spec = audit_spec(topic="ids", bootstrap="nowhere:1", folder=folder, num_ids=NUM_IDS, ends={0: NUM_IDS // 20}, **changes)
    source = MemorySource(spec.source, {"ids": topic})
    return run(
        spec,
        folder=folder,
        on_status=lambda *_: None,
        should_stop=lambda: False,
        source=source,
        clock=QuickClock(),
        accept_code_change=is_changed,
    )


def test_job_trains_its_stream_to_the_end(tmp_path: Path) -> None:
    ended = _run(tmp_path)
    assert (ended.outcome, ended.message) == (Outcome.SUCCEEDED, "")
    assert times_trained(open_store(tmp_path)) == [1] * NUM_IDS


def test_job_that_may_not_give_its_positions_back_trains_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(log: MemoryLog, offsets: object, *, group: str) -> None:
        raise AuthError(f"refused: {group}")

    monkeypatch.setattr(MemoryLog, "commit", refuse)
    ended = _run(tmp_path)
    assert (ended.outcome, ended.message) == (Outcome.SUCCEEDED, "")


def test_job_that_gets_no_better_succeeds_early_behind_a_checkpoint_of_all_it_trained(tmp_path: Path) -> None:
    ended = _run(tmp_path, train={"early_stop": {"patience_rows": 500}})  # the loss of each row is 0 when it comes
    assert ended.outcome is Outcome.SUCCEEDED
    assert ended.message.startswith("loss has not been better than 0 since")
    assert ended.status is not None
    times = times_trained(open_store(tmp_path))
    assert 500 <= sum(times) == ended.status.rows_trained < NUM_IDS
    assert set(times) == {0, 1}


def test_job_whose_code_was_changed_goes_on_where_that_is_allowed(tmp_path: Path) -> None:
    code, topic = shutil.copytree(CODE, tmp_path / "code"), _topic()
    checkpoints = tmp_path / "checkpoints"
    stopped = _run(checkpoints, topic=topic, code=str(code), train={"early_stop": {"patience_rows": 500}})
    assert stopped.outcome is Outcome.SUCCEEDED
    (code / "audit_map.py").write_text("changed = True")
    refused = _run(checkpoints, topic=topic, code=str(code))
    assert (refused.outcome, refused.reason) == (Outcome.BLOCKED, "DRIFT")
    assert "--accept-code-change" in refused.message
    assert _run(checkpoints, topic=topic, code=str(code), is_changed=True).outcome is Outcome.SUCCEEDED
    assert times_trained(open_store(checkpoints)) == [1] * NUM_IDS


def test_job_has_the_packages_that_it_requires_and_a_replay_has_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    offer("dtrain-alone", ["1.0", "2.0"])
    code, topic, told = shutil.copytree(CODE, tmp_path / "code"), _topic(), list[str]()
    task = "from audit_task import AuditTask\nfrom dtrain_alone import VERSION\n\n\nclass Alone(AuditTask):\n    version = VERSION\n"
    (code / "alone_task.py").write_text(task)
    checkpoints = tmp_path / "checkpoints"

    def lived(requirement: str, steps: int) -> Observation:
        job: dict[str, Any] = {"code": str(code), "task": "alone_task:Alone", "requirements": [requirement]}
        spec, source = _shuffled(topic, checkpoints, **job)
        looks = count()
        return run(
            spec,
            folder=checkpoints,
            on_status=lambda _, happenings: told.extend(happening.message for happening in happenings),
            should_stop=lambda: next(looks) >= steps,
            source=source,
            clock=QuickClock(),
        )

    assert lived("dtrain-alone<2", 20).outcome is Outcome.STOPPED
    store = open_store(checkpoints)
    lock = Lock.from_json(read_lock(store, store.find(None).lock_sha256))
    assert lock.versions == {"dtrain-alone": "1.0"}
    assert sum(words.startswith("settled for the life of the job") for words in told) == 1
    assert sys.modules["dtrain_alone"].VERSION == "1.0"
    refused = lived("dtrain-alone", 1_000_000)
    assert (refused.reason, "dtrain-alone 1.0 → 2.0" in refused.message) == ("DRIFT", True)
    assert lived("dtrain-alone<2", 1_000_000).outcome is Outcome.SUCCEEDED
    del sys.modules["dtrain_alone"], sys.modules["alone_task"]
    sys.path[:] = [place for place in sys.path if "dtrain-packages" not in place]
    verdict = replay(store, source=_shuffled(topic, checkpoints)[1])
    assert (verdict.is_equal, verdict.is_same_code) == (True, True)
    assert sys.modules["dtrain_alone"].VERSION == "1.0"


class Killed(BaseException):
    """The process is gone: nothing of the job runs any more."""


SPAN = {"rows": 16, "shuffle_rows": 320}
"""Spans of twenty steps."""


def _shuffled(topic: MemoryTopic, folder: Path, **changes: Any) -> tuple[JobSpec, MemorySource]:
    spec = audit_spec(
        topic="ids",
        bootstrap="nowhere:1",
        folder=folder,
        num_ids=NUM_IDS,
        ends={0: NUM_IDS // 20},
        **{"batch": SPAN, **changes},
    )
    return spec, MemorySource(spec.source, {"ids": topic})


def _live(
    topic: MemoryTopic, folder: Path, *, steps: int, is_killed: bool = False, allow_gap: bool = False, **changes: Any
) -> Observation:
    """A life of the job, which is told to stop after so many looks, or is killed then."""
    spec, source = _shuffled(topic, folder, **changes)
    looks = count()

    def should_stop() -> bool:
        is_over = next(looks) >= steps
        if is_over and is_killed:
            raise Killed
        return is_over

    return run(
        spec,
        folder=folder,
        on_status=lambda *_: None,
        should_stop=should_stop,
        source=source,
        clock=QuickClock(),
        allow_gap=allow_gap,
    )


def _proven(topic: MemoryTopic, folder: Path, **names: str) -> Verdict:
    _, source = _shuffled(topic, folder)
    verdict = replay(open_store(folder), source=source, **names)
    assert verdict.is_equal, verdict.sentence
    assert (verdict.audit.lost, verdict.audit.doubled) == (0, 0)
    assert verdict.audit.trained == verdict.rows
    return verdict


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_shuffled_job_killed_and_stopped_in_the_middle_of_spans_trains_every_row_once(tmp_path: Path, order: str) -> None:
    topic = _topic()
    batch = {**SPAN, "order": order}
    for steps, is_killed in ((9, False), (7, True), (30, True), (11, False), (5, True)):
        try:
            assert _live(topic, tmp_path, steps=steps, is_killed=is_killed, batch=batch).outcome is Outcome.STOPPED
        except Killed:
            assert is_killed
        assert open_store(tmp_path).find(None).progress.span is not None
    assert _live(topic, tmp_path, steps=10**9, batch=batch).outcome is Outcome.SUCCEEDED
    store = open_store(tmp_path)
    assert times_trained(store) == [1] * NUM_IDS
    assert store.find(None).progress.span is None
    assert _proven(topic, tmp_path).rows == NUM_IDS


def test_shuffled_job_is_the_same_killed_or_not(tmp_path: Path) -> None:
    """`strict`: what a span is does not depend on when somebody died."""
    topic, batch = _topic(), {**SPAN, "order": "strict"}
    assert _live(topic, tmp_path / "one", steps=10**9, batch=batch).outcome is Outcome.SUCCEEDED
    with pytest.raises(Killed):
        _live(topic, tmp_path / "other", steps=27, is_killed=True, batch=batch)
    assert _live(topic, tmp_path / "other", steps=10**9, batch=batch).outcome is Outcome.SUCCEEDED
    one, other = (list(_parts(open_store(tmp_path / name))) for name in ("one", "other"))
    assert one == other
    assert [start for start, _ in one[:21]] == [*range(0, 320, 16), 0]


def _parts(store: CheckpointStore) -> Iterator[tuple[int, int]]:
    for entry in store.entries(store.find(None).progress):
        if entry.part is not None:
            yield entry.part.start, entry.num_rows


def test_replay_from_and_to_the_middle_of_a_span_is_equal_and_counts_the_open_rows(tmp_path: Path) -> None:
    topic = _topic()
    for steps in (9, 9):
        assert _live(topic, tmp_path, steps=steps).outcome is Outcome.STOPPED
    store = open_store(tmp_path)
    first, *_, last = (manifest for ref in store.history() if (manifest := store.find(ref.name)).progress.span is not None)
    whole = _proven(topic, tmp_path, to=last.name)
    assert last.progress.span is not None
    assert whole.audit.open == last.progress.span.num_left
    assert whole.audit.trained + whole.audit.open == whole.audit.in_topic
    assert f"{whole.audit.open} of a span that is open here are still to come" in whole.sentence
    assert _proven(topic, tmp_path, start=first.name, to=last.name).steps == last.progress.step - first.progress.step > 0


def test_shuffled_job_that_gets_no_better_ends_behind_its_span(tmp_path: Path) -> None:
    ended = _live(_topic(), tmp_path, steps=10**9, train={"early_stop": {"patience_rows": 500}})
    assert (ended.outcome, ended.message.split(" since")[0]) == (Outcome.SUCCEEDED, "loss has not been better than 0")
    progress = open_store(tmp_path).find(None).progress
    assert progress.span is None
    assert (progress.rows_trained % 320, progress.rows_trained < NUM_IDS) == (0, True)


def test_open_span_whose_rows_are_gone_blocks_the_job_until_that_is_allowed(tmp_path: Path) -> None:
    topic = _topic()
    _live(topic, tmp_path, steps=9)
    progress = open_store(tmp_path).find(None).progress
    assert progress.span is not None
    topic.delete_before(progress.positions[topic.partitions[0]].offset - 1)
    ended = _live(topic, tmp_path, steps=10**9)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DATA_LOSS")
    assert _live(topic, tmp_path, steps=10**9, allow_gap=True).outcome is Outcome.SUCCEEDED
    store = open_store(tmp_path)
    skipped = [entry.num_rows for entry in store.entries(store.find(None).progress) if entry.skipped == "lost"]
    assert sum(skipped) == progress.span.num_left
    assert sorted(times_trained(store)) == [0] * sum(skipped) + [1] * (NUM_IDS - sum(skipped))


def test_job_file_that_was_edited_does_not_go_on_silently(tmp_path: Path) -> None:
    assert _run(tmp_path).outcome is Outcome.SUCCEEDED
    line = open_store(tmp_path).history()
    again = _run(tmp_path, evaluate={"held_out": 0.1}, train={"seed": 5})
    assert (again.outcome, again.reason) == (Outcome.BLOCKED, "DRIFT")
    assert "evaluate.held_out: 0.0 then, 0.1 now; train.seed: 0 then, 5 now; restore these fields" in again.message
    assert open_store(tmp_path).history() == line
    assert _run(tmp_path, checkpoint={"keep": 7}).outcome is Outcome.SUCCEEDED
