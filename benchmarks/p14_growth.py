"""P14: growth. Memory of a job at lag x1, x10, x100, and with its trainers stopped; the coordinator's ear with 10, 100, 1,000 simulated trainers. No peer.

Memory: a whole job with two trainers, while it works through 300,000, 3,000,000 and 30,000,000 rows that were there before it, and at the last of
these once more while its trainers are stopped by a signal; what the object store holds, and the private memory of readers, of the coordinator, and
of all processes of the job with the store. Trainers: the coordinator's real listener,
status and metrics on one event loop; the trainers are sockets that send what a real one sends, eight times a lease of 1 s, and one of them reports
ten steps a second. It holds if nobody is evicted and the loop is not late by more than a tenth of a lease. Not in here: pulling plans.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from benchmarks.measure import Figure
from benchmarks.object_store import reserved_bytes
from benchmarks.p01_workload import NUM_FEATURES, rows
from benchmarks.p06_systems import Dtrain
from benchmarks.p06_trial import await_whole
from benchmarks.p14_swarm import STEPS_A_S
from benchmarks.world import a_broker, message, new_topic, produce
from deploy.kafka.broker import Broker
from dtrain.clock import SystemClock
from dtrain.metrics.job import JobMetrics
from dtrain.runtime.pulse import PulseListener
from dtrain.runtime.tracker import Tracker
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.report import TrainReport

LAG_ROWS = 300_000
FACTORS = (1, 10, 100)
ROWS = 64
"""A step: small, so that the smallest lag lasts."""
ROWS_A_MESSAGE = 1000
SETTLE_S = 4.0
STOPPED_S = 8.0
"""Shorter than what a step may take before its worker counts as stuck."""
STOPPED = "stopped"
NUM_TRAINERS = (10, 100, 1000)
LEASE_S = 1.0
HELD_S = 20.0


def run(*, pairs: int) -> Iterator[Figure]:
    """Memory first, then the swarm."""
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        topics = {factor: _topic(broker, num_rows=LAG_ROWS * factor) for factor in FACTORS}
        seen: dict[str, list[Memory]] = {}
        for _, factor in itertools.product(range(pairs), FACTORS):
            for when, memory in _memory_mb(broker, topics[factor], factor=factor).items():
                seen.setdefault(when, []).append(memory)
                told = ", ".join(f"{part} {value:.1f} MB" for part, value in memory.items())
                print(f"  {when}: {told}", flush=True)
    first, *others = seen
    for when, part in itertools.product(others, seen[first][0]):
        ratio = median(memory[part] for memory in seen[when]) / median(memory[part] for memory in seen[first])
        yield Figure.absolute(ratio, id="P14", figure=f"{part}_memory_{when}", goal=1.05, pairs=pairs)
    for num in NUM_TRAINERS:
        late_ms, cpu, evicted = asyncio.run(_held(num))
        print(f"  {num} trainers: the loop is late by p99 {late_ms:.1f} ms, {cpu:.2f} of a core, {evicted} evicted", flush=True)
        yield Figure.absolute(evicted, id="P14", figure=f"evicted_of_{num}", goal=0)
        yield Figure.absolute(late_ms, id="P14", figure=f"loop_late_p99_ms_{num}", goal=LEASE_S * 100)


Memory = Mapping[str, float]
"""Megabytes by part of the job."""


def _topic(broker: Broker, *, num_rows: int) -> str:
    topic = new_topic(broker)
    few = [
        message({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), NUM_FEATURES), "y": y})
        for x, y in rows(ROWS_A_MESSAGE)
    ]
    produce(broker, topic, itertools.islice(itertools.cycle(few), num_rows // ROWS_A_MESSAGE))
    return topic


def _memory_mb(broker: Broker, topic: str, *, factor: int) -> dict[str, Memory]:
    """In the middle of a job's work; with the most lag, also while its trainers are stopped."""
    source = {"topic": topic, "bootstrap": broker.bootstrap, "start": "earliest"}
    task = {"name": "p14", "task": "p01_workload:PerceptronTask", "params": {"hidden": [512, 512]}}
    system = Dtrain({**task, "source": source, "batch": {"rows": ROWS}, "workers": {"lease": 60}})
    found = {}
    with TemporaryDirectory(prefix="p14-") as name:
        system.open(Path(name), num_ranks=2)
        try:
            if not await_whole(Path(name), num_ranks=2):
                raise SystemExit("the job has not begun to train")
            time.sleep(SETTLE_S)
            found[f"lag_x{factor}"] = _memory_of(system)
            if factor == max(FACTORS):
                trainers = system.ranks().values()
                for pid in trainers:
                    os.kill(pid, signal.SIGSTOP)
                time.sleep(STOPPED_S)
                found[STOPPED] = _memory_of(system)
                for pid in trainers:
                    os.kill(pid, signal.SIGCONT)
        finally:
            system.close()
    return found


def _memory_of(system: Dtrain) -> Memory:
    """Of a job that has rows to read."""
    system.job.observe()
    status = system.job.status
    if status.lag_rows < LAG_ROWS // 4:
        raise SystemExit("the job has come to the end of its topic too early: raise LAG_ROWS")
    private_kb: dict[str, int] = {}
    for member in status.members:
        private_kb[member.role] = private_kb.get(member.role, 0) + _status_kb(member.pid)["RssAnon"]
    store_mb = reserved_bytes() / 2**20
    parts = {role: private_kb[role] / 1024 for role in ("reader", "coordinator")}
    return {"job": sum(private_kb.values()) / 1024 + store_mb, **parts, "store": store_mb}


def _status_kb(pid: int) -> dict[str, int]:
    """The sizes in /proc/<pid>/status."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    return {fields[0].rstrip(":"): int(fields[1]) for fields in lines if len(fields) == 3 and fields[2] == "kB"}


async def _held(num: int) -> tuple[float, float, int]:
    """(99th percentile of the event loop's lateness in ms, share of a core, how many were evicted)."""
    silent: list[int] = []
    clock = SystemClock()
    listener = PulseListener(
        lease_s=LEASE_S, clock=clock, on_silent=lambda member, *_: silent.append(member), on_leaving=lambda _: None
    )
    await listener.open("127.0.0.1")
    terms = listener.terms(0)
    options = [
        f"--host={terms.host}",
        f"--port={terms.port}",
        f"--token={terms.token}",
        f"--num={num}",
        f"--every-s={terms.every_s}",
    ]
    swarm = subprocess.Popen([sys.executable, "-m", "benchmarks.p14_swarm", *options])
    try:
        while len(listener.places) < num:
            await asyncio.sleep(0.1)
        silent.clear()  # whoever was slow to begin
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        late_ms = await _report(clock)
        cpu = (time.process_time() - began_cpu_s) / (time.perf_counter() - began_s)
        return float(np.percentile(late_ms, 99)), cpu, len(silent)
    finally:
        swarm.kill()
        swarm.wait()
        await asyncio.sleep(1.0)  # until every socket's end has been heard
        listener.close()


async def _report(clock: SystemClock) -> list[float]:
    """Reports come in for a while, as one trainer sends them; by how many ms each was late."""
    tracker, metrics, late_ms = Tracker(clock), JobMetrics("p14", version="0"), []
    positions = {Partition("topic", number): Position(0) for number in range(16)}
    next_s = time.perf_counter()
    for step in range(int(HELD_S * STEPS_A_S)):
        next_s += 1 / STEPS_A_S
        await asyncio.sleep(max(0.0, next_s - time.perf_counter()))
        late_ms.append((time.perf_counter() - next_s) * 1000)
        progress = Progress(plan_number=step, step=step, positions=positions, rows_trained=step * ROWS)
        tracker.report(TrainReport(progress, newest_ms=0, loss=0.5, scores={}, total_loss=0.5, total_scores={}, steps_s=[0.1]))
        metrics.observe_step(0.1)
        metrics.update(tracker.status())
    return late_ms
