"""A live job in a storm of faults that one seed decides; then the oracles: `python -m tests.fault.chaos --seed 7 --duration-s 240`.

A campaign, in parts of some kills each, whose results are lines of a file: `--kills 2000 --every-s 6 --to results.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import tests.conftest  # noqa: F401 - Ray's environment, before Ray is imported
from benchmarks.traces import Trace, read_traces
from dtrain.job.status import Observation, Outcome
from tests.support.audit import audit_spec, id_messages, times_trained
from tests.support.cluster import ray_cluster
from tests.support.controlled import ControlledJob, ControlPlane
from tests.support.kafka import Kafka, broker_from_environment

PARTITIONS, ROWS_A_MESSAGE, MESSAGES_A_S = 4, 4, 100
LEASE_S = 1.0
PART_KILLS = 50
_END_S = 300.0

KILLS: Mapping[str, int] = {
    "rank 0 killed": 8,
    "trainer killed": 8,
    "two trainers killed": 2,
    "all trainers killed": 1,
    "reader killed": 3,
    "coordinator killed": 4,
    "coordinator and trainer killed": 2,
    "control plane killed": 2,
    "control plane and coordinator killed": 1,
}
"""Kinds of SIGKILLs, and how often each comes."""

FAULTS: Mapping[str, int] = {
    **KILLS,
    "trainer stopped for a moment": 3,
    "trainer frozen": 4,
    "trainer asked to end": 3,
    "broker killed": 1,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens `after_s` behind the fault before; unless `in_recovery`, not before the job trains again.

    `rank` is a share of the ranks that there are then.
    """

    after_s: float
    kind: str
    rank: float
    in_recovery: bool


def storm(seed: int, *, duration_s: float, every_s: float, kinds: Mapping[str, int] = FAULTS) -> list[Fault]:
    """The faults of a run: a function of nothing but its arguments. One in six comes while the one before is being made good."""
    chance, faults = random.Random(seed), list[Fault]()
    while True:
        in_recovery = chance.random() < 1 / 6
        after_s = round(chance.uniform(0, 0.3) if in_recovery else every_s * chance.uniform(0.4, 1.6), 2)
        (kind,) = chance.choices(list(kinds), weights=list(kinds.values()))
        if sum(fault.after_s for fault in faults) + after_s > duration_s:
            return faults
        faults.append(Fault(after_s, kind, chance.random(), in_recovery))


@dataclass(slots=True)
class Result:
    """What came of a run. `lost` and `doubled` are read off the weights, and again by the audit of the log."""

    seed: int
    outcome: str
    faults: dict[str, int]
    kills: int
    attempts: int
    steps: int
    again: int
    """Steps that were applied, lost with all who had them, and applied again."""
    rows: int
    lost: int
    doubled: int
    replay: str
    is_sound: bool
    recoveries_ms: list[int]
    """From the SIGKILL of one trainer to the next step that the later survivor applied without it."""
    seconds: float


class Producer:
    """Writes one message after the other, in real time, each once; the last of each partition only when it is told to finish."""

    def __init__(self, kafka: Kafka, topic: str, messages: Sequence[bytes]) -> None:
        self._kafka, self._topic, self._messages = kafka, topic, messages
        self._may_finish = threading.Event()
        self._num_sent = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_dry(self) -> bool:
        """All that may be written is."""
        return self._num_sent >= len(self._messages) - PARTITIONS

    def finish(self) -> None:
        self._may_finish.set()
        self._thread.join()

    def _run(self) -> None:
        producer = self._kafka.producer(
            enable_idempotence=True, retries=10_000, delivery_timeout_ms=600_000, max_block_ms=600_000
        )
        for number, message in enumerate(self._messages):
            is_last = number >= len(self._messages) - PARTITIONS
            self._may_finish.wait(None if is_last else 1 / MESSAGES_A_S)
            producer.send(self._topic, message, partition=number % PARTITIONS)
            self._num_sent += 1
        producer.flush(timeout=120)
        producer.close(timeout=5)


@dataclass(slots=True)
class Nemesis:
    """Does to a job what the storm says."""

    job: ControlledJob
    kafka: Kafka
    producer: Producer
    done: Counter[str] = field(default_factory=Counter)
    num_kills: int = 0
    strikes: list[tuple[float, int, set[int]]] = field(default_factory=list)
    """(when, victim, survivors) of trainers killed alone."""

    def run(self, faults: Sequence[Fault], *, max_kills: int) -> None:
        """One after the other, until the job ends or so many processes were killed."""
        self.job.wait_for_world(3, timeout_s=_END_S)
        for fault in faults:
            if self.num_kills >= max_kills or not self._await(fault):
                return
            self._strike(fault)
            self.done[fault.kind] += 1

    def _await(self, fault: Fault) -> bool:
        """It is time for `fault`; False where the job has ended before."""
        step, until_s = self.job.status.step, time.monotonic() + fault.after_s
        while (left_s := until_s - time.monotonic()) > 0:
            self.job.observe()
            time.sleep(min(left_s, 0.1))

        def is_time(seen: Observation) -> bool:
            trains = seen.phase == "running" and len(self.job.ranks) == self.job.status.world_size
            return bool(self.job.ranks) and (
                fault.in_recovery or (trains and (self.job.status.step >= step + 3 or self.producer.is_dry))
            )

        seen = self.job.wait(lambda seen: is_time(seen) or seen.outcome is not Outcome.NONE, timeout_s=_END_S)
        return seen.outcome is Outcome.NONE

    def _strike(self, fault: Fault) -> None:
        ranks = self.job.ranks
        one = ranks[int(fault.rank * len(ranks))]
        coordinators = self.job.pids("coordinator")
        match fault.kind:
            case "rank 0 killed":
                self._kill_alone(ranks[0], ranks)
            case "trainer killed":
                self._kill_alone(one, ranks)
            case "two trainers killed":
                self._kill(*random.Random(fault.rank).sample(ranks, min(2, len(ranks))))
            case "all trainers killed":
                self._kill(*self.job.pids("trainer"))
            case "reader killed":
                self._kill(*self.job.pids("reader"))
            case "coordinator killed":
                self._kill(*coordinators)
            case "coordinator and trainer killed":
                self._kill(*coordinators, one)
            case "control plane killed":
                self._kill_plane()
            case "control plane and coordinator killed":
                self._kill(*coordinators)
                self._kill_plane()
            case "trainer stopped for a moment":
                self._stop(one, LEASE_S / 4)
            case "trainer frozen":
                self._stop(one, LEASE_S * 2)
            case "trainer asked to end":
                _signal(one, signal.SIGTERM)
            case "broker killed":
                self.kafka.broker.kill()
                self.num_kills += 1
                self.kafka.broker.restart()

    def _kill_alone(self, victim: int, ranks: Sequence[int]) -> None:
        self.strikes.append((time.monotonic(), victim, set(ranks) - {victim}))
        self._kill(victim)

    def _kill(self, *pids: int) -> None:
        for pid in pids:
            self.num_kills += _signal(pid, signal.SIGKILL)

    def _kill_plane(self) -> None:
        self.job.plane.kill()
        self.num_kills += 1
        self.job.plane.start()

    def _stop(self, pid: int, duration_s: float) -> None:
        if _signal(pid, signal.SIGSTOP):
            time.sleep(duration_s)
            _signal(pid, signal.SIGCONT)


def _signal(pid: int, kind: signal.Signals) -> bool:
    with suppress(ProcessLookupError):  # it has just been replaced
        os.kill(pid, kind)
        return True
    return False


def run_storm(
    kafka: Kafka, *, faults: Sequence[Fault], traces: Path, folder: Path, seed: int = 0, max_kills: int = sys.maxsize
) -> Result:
    """A job of three trainers and a spare lives through `faults`, while its stream goes on; then the stream ends, and all is counted."""
    began_s = time.monotonic()
    topic = kafka.new_topic(partitions=PARTITIONS)
    lasts_s = 1.5 * sum(fault.after_s for fault in faults) + 20  # recoveries take time too
    num_ids = int(lasts_s * MESSAGES_A_S) * ROWS_A_MESSAGE
    messages = list(id_messages(num_ids, rows=ROWS_A_MESSAGE))
    spec = audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=folder / "checkpoints",
        num_ids=num_ids,
        ends={partition: len(messages[partition::PARTITIONS]) for partition in range(PARTITIONS)},
        batch={"rows": 32, "num_slices": 4},
        workers={"min": 2, "max": 3, "spares": 1, "cpus": 0.1, "lease": LEASE_S},
        checkpoint={"every": 1.0, "keep": 10_000},  # the replay looks at every one
    )
    plane = ControlPlane(folder / "home")
    try:
        job = ControlledJob(spec, plane=plane)
        try:
            job.wait(lambda seen: job.status.world_size == 3, timeout_s=_END_S)
            producer = Producer(kafka, topic, messages)
            nemesis = Nemesis(job, kafka, producer)
            nemesis.run(faults, max_kills=max_kills)
            producer.finish()
            ended = job.wait_for_end(timeout_s=_END_S)
            counts = times_trained(job.store)
            verdict = job.replay()
        finally:
            for happening in job.happenings:
                if happening.kind != "checkpoint":
                    print(f"{happening.at_s % 1000:7.3f} {happening.message}", file=sys.stderr)
            plane.kill()  # first: it would launch the job again
            job.close()
    finally:
        plane.kill()
    lost, doubled = counts.count(0), sum(count - 1 for count in counts if count > 1)
    audit = verdict.audit
    found = {pid: trace for pid, trace in read_traces(traces).items() if len(trace) and trace["at_s"][0] > began_s}
    return Result(
        seed=seed,
        outcome=ended.outcome,
        faults=dict(nemesis.done),
        kills=nemesis.num_kills,
        attempts=len(job.store.attempts()),
        steps=job.store.find(None).progress.step,
        again=_applied_again(found),
        rows=num_ids,
        lost=lost,
        doubled=doubled,
        replay=verdict.sentence,
        is_sound=ended.outcome is Outcome.SUCCEEDED
        and verdict.is_equal
        and not (lost or doubled or audit.lost or audit.doubled or set(counts) - {1}),
        recoveries_ms=[round(1000 * s) for strike in nemesis.strikes for s in _recovery_s(found, *strike)],
        seconds=round(time.monotonic() - began_s, 1),
    )


def _recovery_s(traces: Mapping[int, Trace], struck_s: float, victim: int, survivors: set[int]) -> Iterator[float]:
    """Until the later survivor had applied a step that the victim can have had no part in; nothing where nobody survived."""
    if victim not in traces or not survivors <= traces.keys():
        return
    last, firsts = int(traces[victim]["number"][-1]), []
    for pid in survivors:
        trace = traces[pid]
        firsts += trace["at_s"][(trace["at_s"] > struck_s) & (trace["number"] >= last + 2)][:1].tolist()
    if len(firsts) == len(survivors) > 0:
        yield max(firsts) - struck_s


def _applied_again(traces: Mapping[int, Trace]) -> int:
    """Steps that somebody applied when somebody had been two steps further: ranks of one generation are never so far apart."""
    records = sorted((at_s, number) for trace in traces.values() for number, at_s in trace.tolist())
    furthest, behind_it, again = 0, 0, set()
    for _, number in records:
        if number < behind_it:
            again.add(number)
        if number > furthest:
            furthest, behind_it = number, furthest
    return len(again)


def _percentiles(recoveries_ms: Sequence[int]) -> str:
    if len(recoveries_ms) < 2:
        return f"{list(recoveries_ms)} ms"
    cuts = quantiles(recoveries_ms, n=100, method="inclusive")
    return f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms, of {len(recoveries_ms)}"


def _print(result: Result) -> None:
    print(f"faults: {sum(result.faults.values())} {result.faults}, {result.kills} SIGKILLs, {result.attempts} attempts")
    print(f"recovery of the later survivor of a trainer's death: {_percentiles(result.recoveries_ms)}")
    print(f"steps: {result.steps}, applied again: {result.again}")
    print(f"records: {result.rows}, lost {result.lost}, doubled {result.doubled}; replay: {result.replay}")
    print(json.dumps(asdict(result)), flush=True)


@contextmanager
def _ground() -> Iterator[tuple[Kafka, Path, Path]]:
    """A broker and a cluster of our own: (broker, traces, folder)."""
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        broker_from_environment(Path(name) / "broker") as broker,
        ray_cluster(Path(name) / "ray", num_cpus=8) as traces,
    ):
        kafka = Kafka(broker)
        yield kafka, traces, Path(name)
        kafka.close()


def chaos(seed: int, *, duration_s: float, every_s: float) -> bool:
    """One storm of all kinds of faults; whether nothing was lost or doubled."""
    faults = storm(seed, duration_s=duration_s, every_s=every_s)
    for fault in faults:
        print(f"{fault.after_s:8.2f} s later: {fault.kind}{' (while it recovers)' * fault.in_recovery}", flush=True)
    with _ground() as (kafka, traces, folder):
        result = run_storm(kafka, faults=faults, traces=traces, folder=folder, seed=seed)
    _print(result)
    return result.is_sound


def campaign(seed: int, *, kills: int, every_s: float, to: Path) -> bool:
    """Storms of SIGKILLs, a job and a line in `to` each, until the lines there count so many kills; whether all were sound."""
    with _ground() as (kafka, traces, folder):
        while ((done := _known(to)) and sum(line["kills"] for line in done) < kills) or not done:
            faults = storm(seed + len(done), duration_s=PART_KILLS * every_s, every_s=every_s, kinds=KILLS)
            part = folder / str(len(done))
            result = run_storm(kafka, faults=faults, traces=traces, folder=part, seed=seed + len(done), max_kills=PART_KILLS)
            with to.open("a") as lines:
                lines.write(json.dumps(asdict(result)) + "\n")
            _print(result)
    recoveries_ms = [ms for line in done for ms in line["recoveries_ms"]]
    totals = {name: sum(line[name] for line in done) for name in ("kills", "steps", "again", "rows", "lost", "doubled")}
    print(f"{len(done)} jobs: {totals}; recovery {_percentiles(recoveries_ms)}")
    return all(line["is_sound"] for line in done)


def _known(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--duration-s", type=float, default=240)
    parser.add_argument("--every-s", type=float, default=6)
    parser.add_argument("--kills", type=int, default=0, help="SIGKILLs alone, in parts, until there were so many")
    parser.add_argument("--to", type=Path, default=Path("chaos.jsonl"), help="where a campaign's parts are added")
    options = parser.parse_args()
    if options.kills:
        is_sound = campaign(options.seed, kills=options.kills, every_s=options.every_s, to=options.to)
    else:
        is_sound = chaos(options.seed, duration_s=options.duration_s, every_s=options.every_s)
    sys.exit(0 if is_sound else 1)


if __name__ == "__main__":
    main()
