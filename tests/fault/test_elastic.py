"""Members come, go, freeze and misbehave while a job trains on real Ray and Kafka; each ends in oracles 1 and 2."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.traces import Trace, is_alive, read_traces
from dtrain.job.status import Outcome
from dtrain.steplog.entries import StepKind
from dtrain.steplog.positions import Position
from tests.support.audit import CODE, audit_spec, id_messages, times_trained
from tests.support.cluster import ClusterJob
from tests.support.kafka import Kafka

PARTITIONS, ROWS_A_MESSAGE = 3, 10
PATIENCE_S = 400.0
"""For what comes soon on an idle machine: a new process took two minutes where forty waited for its two cores."""
LEASE_S = 5.0
"""Who is frozen is missed after so long, and nobody else: one second was too short for a process among forty on two cores."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Scene:
    """Jobs over topics of their own, which take their time until they are told to hurry."""

    def __init__(self, kafka: Kafka, traces: Path, folder: Path) -> None:
        self._kafka, self._folder, self._traces = kafka, folder, traces
        self._jobs: list[ClusterJob] = []

    def job(
        self,
        num_ids: int,
        *,
        pace_s: float = 0.01,
        acts: Mapping[str, int] | None = None,
        now: int = 0,
        code: Path = CODE,
        **workers: Any,
    ) -> ClusterJob:
        """A job that has been launched; `workers` of its spec, of which `now` train at first."""
        topic = self._kafka.new_topic(partitions=PARTITIONS)
        slow_from = num_ids if acts else num_ids * 2 // 3  # who acts by himself comes to the end by himself
        messages = list(id_messages(num_ids, rows=ROWS_A_MESSAGE))
        for partition in range(PARTITIONS):
            self._kafka.produce(topic, partition, messages[partition::PARTITIONS])
        (self._folder / topic).mkdir()
        spec = audit_spec(
            topic=topic,
            bootstrap=self._kafka.bootstrap,
            folder=self._folder / "checkpoints",
            num_ids=num_ids,
            ends={partition: len(messages[partition::PARTITIONS]) for partition in range(PARTITIONS)},
            task="hostile_task:HostileTask",
            code=str(code),
            params={"acts": dict(acts or {}), "folder": str(self._folder / topic), "pace_s": pace_s, "slow_from": slow_from},
            batch={"rows": 16, "num_slices": 4},
            workers={"min": 1, "max": 3, "cpus": 0.1, "lease": LEASE_S, **workers},
            checkpoint={"every": 0.5},
        )
        job = ClusterJob(spec, job_id=topic, logs=self._folder / "logs", workers=now)
        self._jobs.append(job)
        return job

    def finish(self, job: ClusterJob) -> None:
        """The job trains what is left as fast as it can, and has succeeded; oracles 1 and 2."""
        (Path(str(job.spec.params["folder"])) / "hurry").touch()
        assert job.wait_for_end(timeout_s=PATIENCE_S).outcome is Outcome.SUCCEEDED
        job.check()

    def steps(self, pid: int) -> list[int]:
        """Numbers of the plans that a process has applied, in its order."""
        trace: Trace | None = read_traces(self._traces).get(pid)
        return [] if trace is None else trace["number"].tolist()

    def never_went_back(self, *pids: int) -> bool:
        """Each of these processes has gone on with all that it had."""
        return all(np.all(np.diff(self.steps(pid)) > 0) and self.steps(pid) for pid in pids)

    def close(self) -> None:
        for job in self._jobs:
            for happening in job.happenings:  # shown where a test fails
                print(f"{happening.at_s % 1000:.3f}", job.record.job_id, happening.message)
            job.close()


@pytest.fixture
def scene(kafka: Kafka, cluster: Path, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(kafka, cluster, tmp_path)
    yield scene
    scene.close()


def _until(is_true: Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not is_true() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return is_true()


def _signal(pid: int, kind: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, kind)


def _strike(scene: Scene, job: ClusterJob, rank: int, kind: signal.Signals) -> int:
    """The trainer of `rank` gets a signal; when three train again, the others have gone on with what they had."""
    ranks, generation = job.ranks, job.generation
    victim = ranks.pop(rank)
    before = {pid: len(scene.steps(pid)) for pid in ranks}
    _signal(victim, kind)
    assert job.wait_for_world(3, after=generation, timeout_s=PATIENCE_S) > set(ranks)
    assert _until(lambda: all(len(scene.steps(pid)) > num + 3 for pid, num in before.items()))
    return victim


def test_trainers_lost_in_turn_the_survivors_go_on_in_their_processes(scene: Scene) -> None:
    job = scene.job(18_000, pace_s=0.2)
    everybody = job.wait_for_world(3)
    job.wait_for_step(20)
    for rank in (0, 2):
        _strike(scene, job, rank, signal.SIGKILL)
    asked = _strike(scene, job, 0, signal.SIGTERM)
    assert _until(lambda: not is_alive(asked))
    last = scene.steps(asked)[-1]
    frozen = _strike(scene, job, 0, signal.SIGSTOP)
    num_written = len(scene.steps(frozen))
    _signal(frozen, signal.SIGCONT)
    assert _until(lambda: not is_alive(frozen))
    assert len(scene.steps(frozen)) <= num_written + 1  # in its own memory, of which nobody knows
    scene.finish(job)
    assert job.status.attempt == 1
    assert not job.told("going back")
    assert scene.never_went_back(*everybody, *job.ranks)
    evicted = job.told(f"(pid {frozen} on ")[-1]
    assert re.fullmatch(r"trainer \d+ \(pid \d+ on [\d.]+\) is evicted: it has been silent for 5 s; at plan \d+ it .*", evicted)
    assert "hands over" in job.told(f"(pid {asked} on ")[0]
    kinds = {entry.number: entry.kind for entry in job.store.entries(job.store.find(None).progress)}
    behind = [kinds[number] for number in range(last + 1, last + 4)]
    assert StepKind.MEMBERSHIP in behind[: behind.index(StepKind.DATA) if StepKind.DATA in behind else None]


def test_hot_spare_takes_over_and_workers_come_and_go_without_a_restart(scene: Scene) -> None:
    job = scene.job(18_000, pace_s=0.2, now=1, spares=1, hot=True)
    worker, spare = sorted(job.wait_for_world(2), key=lambda pid: job.ranks.index(pid))
    job.wait_for_step(20)
    before = job.generation
    _signal(worker, signal.SIGKILL)
    job.wait(lambda _: job.generation > before and spare in job.ranks)
    assert "(0 received its state" in job.told("1 trainers at step")[-1]
    job.wait_for_world(2, after=job.generation)
    for workers in (3, 1):
        job.launcher.scale(job.record.job_id, job.record.incarnation, workers)
        job.record = replace(job.record, workers=workers)
        everybody = job.wait_for_world(workers + 1, timeout_s=PATIENCE_S)
        assert spare in everybody
        job.kill("coordinator")  # its successor knows the room that scaling has added
        assert job.wait_for_world(workers + 1, after=job.generation, timeout_s=PATIENCE_S) == everybody
    scene.finish(job)
    assert job.status.attempt == 3
    assert scene.never_went_back(spare)


def test_warm_spare_joins_before_a_new_process_could(scene: Scene) -> None:
    job = scene.job(10_000, pace_s=0.2, max=2, spares=1)
    job.wait(lambda seen: len(job.pids("trainer")) == 3 and len(job.ranks) == 2, timeout_s=PATIENCE_S)
    (warm,) = set(job.pids("trainer")) - set(job.ranks)
    job.wait_for_step(job.status.step + 20)
    _signal(job.ranks[0], signal.SIGKILL)
    assert warm in job.wait_for_world(2, after=job.generation)
    scene.finish(job)
    assert job.status.attempt == 1


def test_coordinator_killed_its_successor_adopts_what_the_trainers_have(scene: Scene) -> None:
    job = scene.job(18_000, pace_s=0.2)
    everybody = job.wait_for_world(3)
    job.wait_for_step(20)
    job.kill("coordinator")
    assert job.wait_for_world(3, after=job.generation) == everybody
    assert job.status.attempt == 2
    lost = job.ranks[0]
    job.kill("coordinator")
    _signal(lost, signal.SIGKILL)
    assert everybody - {lost} < job.wait_for_world(3, after=job.generation, timeout_s=PATIENCE_S)
    assert job.status.attempt == 3
    assert not job.told("going back")
    assert scene.never_went_back(*everybody)
    for pid in job.ranks:
        _signal(pid, signal.SIGKILL)
    assert everybody.isdisjoint(job.wait_for_world(3, after=job.generation, timeout_s=PATIENCE_S))
    assert job.status.attempt == 4
    assert job.told("going back to the last checkpoint")
    scene.finish(job)


def test_trainer_killed_at_each_place_of_a_step_every_record_counts_once(scene: Scene) -> None:
    places = ("forward", "backward", "all-reduce", "optimizer start", "optimizer end", "schedule")
    acts = {f"kill {place}": 2_000 * number for number, place in enumerate(places, 1)}
    job = scene.job(14_000, acts=acts, pace_s=0.02)
    assert job.wait_for_end(timeout_s=PATIENCE_S).outcome is Outcome.SUCCEEDED
    done = {path.name for path in Path(str(job.spec.params["folder"])).iterdir()}
    assert done == {f"kill-{place.replace(' ', '-')}" for place in places}
    assert len(job.told("its process has ended")) == len(places)
    scene.finish(job)


def test_poison_step_blocks_its_job_and_is_left_out_when_that_is_allowed(scene: Scene) -> None:
    poison = 3_001
    job = scene.job(4_000, acts={"vanish": poison}, max=2, pace_s=0.0)
    ended = job.wait_for_end(timeout_s=PATIENCE_S)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "POISON_STEP")
    named = re.findall(r"\S+:(\d) from \((\d+), (\d+)\) to \((\d+), (\d+)\)", ended.message)
    assert poison in {row for found in named for row in _ids(*map(int, found))}
    job.close()
    job.launch_next(skip_step=True)
    assert job.wait_for_end(timeout_s=PATIENCE_S).outcome is Outcome.SUCCEEDED
    skipped = [entry for entry in job.store.entries(job.store.find(None).progress) if entry.skipped]
    assert {entry.skipped for entry in skipped} == {"poison"}
    left_out = {row for e in skipped for r in e.ranges for row in _ids(r.partition.number, *r.start, *r.end)}
    counts = times_trained(job.store)
    assert poison in left_out
    assert left_out == {row for row, count in enumerate(counts) if count == 0}
    assert set(counts) == {0, 1}
    verdict = job.replay()
    assert verdict.is_equal, verdict.sentence
    assert (verdict.audit.lost, verdict.audit.doubled, verdict.audit.skipped) == (0, 0, len(left_out))


def _ids(partition: int, *ends: int) -> range | list[int]:
    """The ids from position (offset, row) to position (offset, row) of a partition."""
    first, last = Position(*ends[:2]), Position(*ends[2:])
    return [
        (offset * PARTITIONS + partition) * ROWS_A_MESSAGE + row
        for offset in range(first.offset, last.offset + 1)
        for row in range(ROWS_A_MESSAGE)
        if first <= Position(offset, row) < last
    ]


def test_hostile_user_code_blocks_its_own_job_alone_until_it_behaves(scene: Scene) -> None:
    quiet = scene.job(16_000, pace_s=0.25, max=2)
    calm = quiet.wait_for_world(2, timeout_s=PATIENCE_S)
    words = {
        "raise": "ValueError: these rows are not to my taste",
        "exit": "SystemExit: that is enough",
        "shape": "HostileTask.loss gave shape [] for",
        "grow": "more",
    }
    jobs = {act: scene.job(1_000, acts={act: 700}, max=1, pace_s=0.0) for act in words}
    for act, job in jobs.items():
        ended = job.wait_for_end(timeout_s=PATIENCE_S)
        assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "TASK"), (act, ended)
        assert words[act] in ended.message
        assert "rows of t-" in ended.message or (act == "grow" and re.search(r"found at step \d+", ended.message))
        assert f"{CODE}/hostile_task.py:" in ended.message or act in {"shape", "grow"}
    quiet.observe()
    quiet.wait_for_step(quiet.status.step + 10)
    scene.finish(quiet)
    assert quiet.status.attempt == 1
    assert scene.never_went_back(*calm)
    assert not quiet.told("its process has ended")
    for job in (jobs["raise"], jobs["grow"]):
        (Path(str(job.spec.params["folder"])) / "behave").touch()
        job.close()
        job.launch_next()
        scene.finish(job)


def test_code_that_is_changed_while_its_job_trains_is_in_no_process_of_it(scene: Scene, tmp_path: Path) -> None:
    code = Path(shutil.copytree(CODE, tmp_path / "code"))
    job = scene.job(60_000, code=code, max=2)
    job.wait_for_world(2, timeout_s=PATIENCE_S)
    module = code / "hostile_task.py"
    text = module.read_text(encoding="utf-8")
    module.write_text(f"{text}\n# changed\n", encoding="utf-8")
    survivor = job.ranks[1]
    job.kill("trainer")
    job.wait(lambda _: bool(job.told("no trainer can be started: the code was changed while the job runs")))
    assert job.wait_for_world(1) == {survivor}
    _signal(survivor, signal.SIGKILL)
    ended = job.wait_for_end(timeout_s=PATIENCE_S)
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DRIFT")
    module.write_text(text, encoding="utf-8")
    job.close()
    job.launch_next()
    scene.finish(job)


def test_hang_and_fork_in_user_code_the_others_go_on(scene: Scene) -> None:
    job = scene.job(8_000, acts={"fork": 2_000, "hang": 5_000}, pace_s=0.04)
    everybody = job.wait_for_world(3, timeout_s=PATIENCE_S)
    scene.finish(job)
    assert scene.never_went_back(*everybody)  # a fork's child would write into its parent's trace
    assert job.status.attempt == 1
    assert re.search(r"is evicted: it has computed plan \d+ for too long", "\n".join(job.told("evicted")))
