"""P11: freshness at half load: from a record's production to the weights, and to a version that can be loaded, against a hand-written loop.

One trainer, a topic of two partitions, the model and rows a step of P1. First what each side can do at most: rows a second from a topic that is full, by
itself, and then beside a producer that writes half as much to another topic: on two cores producer and broker take their part of what a side can do.
Then that producer, a process of its own, writes messages at an even pace, at half of what dtrain could do beside it (or of what the loop could, if that is less), to a
fresh topic for each side, and keeps when it sent each. In the weights is a message when the step with its last row is applied: dtrain's trainer leaves
the time of each step, its log says which rows were in it. In a version it is when a checkpoint that holds it exists: dtrain's manifests appear whole, the loop
renames its file. The loop saves every second, and every 30 s; dtrain writes a checkpoint five times a second. The first seconds are dropped.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.measure import Figure
from benchmarks.p01_workload import NUM_FEATURES, rows
from benchmarks.p06_systems import Dtrain, Scripts
from benchmarks.traces import read_traces
from benchmarks.world import CODE, a_broker, message, new_topic, produce
from deploy.kafka.broker import Broker
from dtrain.checkpoint.places import open_store
from dtrain.errors import NotFoundError
from dtrain.steplog.entries import StepKind
from dtrain.steplog.fences import ManifestRef

PARTITIONS = 2
ROWS_A_MESSAGE = 128
ROWS = 512
HIDDEN = (128, 128)
MAX_WAIT_S = 0.02
FULL_ROWS = 1_500_000
"""Rows that measure what a side can do at most."""
PACED_S = 75.0
BESIDE_S = 300.0
"""More than the second measurement of what a side can do takes."""
DROPPED_S = 8.0
"""At the beginning of the stream."""
TAIL_S = 2.0
"""At its end, besides the time between two saves: nothing that comes later would hold them."""
SAVE_S = (1, 30)
LOOK_EVERY_S = 0.02
GOAL_WEIGHTS_MS, GOAL_VERSION_MS = 100.0, 500.0

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Landing:
    """At `at_s`, on the monotonic clock, everything before `offsets` of each partition was in."""

    at_s: float
    offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Freshness:
    """Milliseconds from production, by message."""

    weights_ms: Times
    version_ms: Times


class Loop(Scripts):
    """The peer: one process."""

    def _start(self) -> None:
        self._run(str(self.python), *self._script())


def run(*, pairs: int) -> Iterator[Figure]:
    """Capacities once; then each side in turn."""
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        rate = _half_load(broker)
        seen: dict[str, list[Freshness]] = {}
        for _ in range(pairs):
            seen.setdefault("dtrain", []).append(_of_dtrain(broker, rate))
            for save_s in SAVE_S:
                seen.setdefault(f"save every {save_s} s", []).append(_of_loop(broker, rate, save_s=save_s))
            for side, found in seen.items():
                print(f"  {side}: {_told(found[-1])}", flush=True)
    ours = seen.pop("dtrain")
    for what, goal in (("weights", GOAL_WEIGHTS_MS), ("version", GOAL_VERSION_MS)):
        for share in (50, 99):
            for peer, theirs in seen.items():
                yield Figure.absolute(
                    _percentile(ours, what, share),
                    id="P11",
                    figure=f"{what}_p{share}_ms",
                    goal=goal,
                    peer=_percentile(theirs, what, share),
                    peer_name=f"kafka-python loop, {peer}",
                    pairs=pairs,
                )


def _percentile(found: Sequence[Freshness], what: str, share: int) -> float:
    return median(float(np.percentile(getattr(one, f"{what}_ms"), share)) for one in found)


def _told(one: Freshness) -> str:
    parts = {"weights": one.weights_ms, "version": one.version_ms}
    return "; ".join(
        f"{what} " + ", ".join(f"p{q} {np.percentile(ms, q):.1f} ms" for q in (50, 99)) for what, ms in parts.items()
    )


# --- what each side can do


def _half_load(broker: Broker) -> float:
    """Messages a second."""
    topic = new_topic(broker, partitions=PARTITIONS)
    few = [
        message({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), NUM_FEATURES), "y": y})
        for x, y in rows(ROWS_A_MESSAGE)
    ]
    produce(broker, topic, islice(cycle(few), FULL_ROWS // ROWS_A_MESSAGE), partitions=PARTITIONS)
    alone = _most(broker, topic)
    with TemporaryDirectory(prefix="p11-") as name:
        beside = _producing(
            broker, new_topic(broker, partitions=PARTITIONS), alone / 2, for_s=BESIDE_S, out=Path(name) / "sent.npy"
        )
        try:
            return _most(broker, topic) / 2
        finally:
            beside.kill()
            beside.wait()


def _most(broker: Broker, topic: str) -> float:
    """Messages a second that the slower side takes from a full topic."""
    with TemporaryDirectory(prefix="p11-") as name:
        system = _dtrain(broker, topic, end="latest")
        system.open(Path(name), num_ranks=1)
        try:
            system.job.wait_for_end(timeout_s=300)
        finally:
            system.close()
        ours = _rate(_landed_by_dtrain(Path(name)))
    with TemporaryDirectory(prefix="p11-") as name:
        loop = _loop(broker, topic, save_s=1, options=["--end"])
        loop.open(Path(name), num_ranks=1)
        try:
            loop.wait(timeout_s=300)
        finally:
            loop.close()
        theirs = _rate(_landed(Path(name) / "steps"))
    print(f"  at most: dtrain {ours * ROWS_A_MESSAGE:.0f} rows/s, the loop {theirs * ROWS_A_MESSAGE:.0f} rows/s", flush=True)
    return min(ours, theirs)


def _rate(line: Sequence[Landing]) -> float:
    """Messages a second, the first fifth dropped."""
    kept = line[len(line) // 5 :]
    return (sum(kept[-1].offsets) - sum(kept[0].offsets)) / (kept[-1].at_s - kept[0].at_s)


# --- one run of each


def _of_dtrain(broker: Broker, rate: float) -> Freshness:
    topic = new_topic(broker, partitions=PARTITIONS)
    with TemporaryDirectory(prefix="p11-") as name:
        folder = Path(name)
        system = _dtrain(broker, topic, end="never")
        system.open(folder, num_ranks=1)
        try:
            system.job.wait(lambda seen: seen.phase == "running", timeout_s=120)
            published = Published(next((folder / "checkpoints").iterdir()))
            sent_s = _produced(broker, topic, rate, folder=folder)
            system.job.stop(timeout_s=60)
            versions = published.stop()
        finally:
            system.close()
        return _freshness(sent_s, _landed_by_dtrain(folder), versions, tail_s=TAIL_S)


def _of_loop(broker: Broker, rate: float, *, save_s: int) -> Freshness:
    topic = new_topic(broker, partitions=PARTITIONS)
    with TemporaryDirectory(prefix="p11-") as name:
        folder = Path(name)
        system = _loop(broker, topic, save_s=save_s)
        system.open(folder, num_ranks=1)
        try:
            sent_s = _produced(broker, topic, rate, folder=folder)
            (folder / "stop").touch()
            system.wait(timeout_s=60)
        finally:
            system.close()
        return _freshness(sent_s, _landed(folder / "steps"), _landed(folder / "saves"), tail_s=TAIL_S + save_s)


def _dtrain(broker: Broker, topic: str, *, end: str) -> Dtrain:
    source = {"topic": topic, "bootstrap": broker.bootstrap, "start": "earliest", "end": end}
    task = {"name": "p11", "task": "p01_workload:PerceptronTask", "params": {"hidden": list(HIDDEN)}}
    return Dtrain({**task, "source": source, "batch": {"rows": ROWS, "max_wait": MAX_WAIT_S}, "checkpoint": {"every": 0.2}})


def _loop(broker: Broker, topic: str, *, save_s: int, options: Sequence[str] = ()) -> Loop:
    given = [
        f"--bootstrap={broker.bootstrap}",
        f"--topic={topic}",
        f"--partitions={PARTITIONS}",
        f"--rows={ROWS}",
        f"--max-wait-s={MAX_WAIT_S}",
        f"--save-every-s={save_s}",
        f"--hidden={','.join(map(str, HIDDEN))}",
    ]
    return Loop("loop", "p11_loop.py", options=[*given, *options])


def _produced(broker: Broker, topic: str, rate: float, *, folder: Path) -> Times:
    """The stream has been written: when each message was sent."""
    out = folder / "sent.npy"
    if _producing(broker, topic, rate, for_s=PACED_S, out=out).wait(timeout=PACED_S * 3):
        raise SystemExit("the producer has failed")
    sent_s: Times = np.load(out)
    return sent_s


def _producing(broker: Broker, topic: str, rate: float, *, for_s: float, out: Path) -> subprocess.Popen[bytes]:
    """A producer at work, at `rate` messages a second."""
    options = {
        "bootstrap": broker.bootstrap,
        "topic": topic,
        "partitions": PARTITIONS,
        "rows-a-message": ROWS_A_MESSAGE,
        "messages": int(rate * for_s),
        "messages-a-s": rate,
        "out": out,
    }
    command = [sys.executable, "-m", "benchmarks.p11_producer", *(f"--{key}={value}" for key, value in options.items())]
    return subprocess.Popen(command, cwd=CODE.parent)


# --- what came of it


class Published:
    """The checkpoints of a job, each from when its manifest has its name: seen while the job runs, which keeps the newest alone.

    Args:
        place: of the job's checkpoints, on a disk.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._line: dict[str, Landing] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> list[Landing]:
        """What was seen, in order."""
        self._is_over.set()
        self._thread.join()
        return [self._line[name] for name in sorted(self._line)]

    def _watch(self) -> None:
        store, to_monotonic_s = open_store(self._place), time.monotonic() - time.time()
        while not self._is_over.wait(LOOK_EVERY_S):
            for file in (self._place / "manifests").glob("*.json"):
                if file.stem in self._line:
                    continue
                with suppress(FileNotFoundError, NotFoundError):  # it has just been deleted
                    named_s = file.stat().st_ctime + to_monotonic_s
                    positions = store.read_manifest(ManifestRef.parse(file.stem)).progress.positions
                    offsets = {partition.number: position.offset for partition, position in positions.items()}
                    self._line[file.stem] = Landing(named_s, tuple(offsets[number] for number in range(PARTITIONS)))


def _freshness(sent_s: Times, weights: Sequence[Landing], versions: Sequence[Landing], *, tail_s: float) -> Freshness:
    """Of the messages that count; one that never came in time makes it infinite."""
    counts = (sent_s >= sent_s[0] + DROPPED_S) & (sent_s <= sent_s[-1] - tail_s)
    return Freshness(*((_arrived_s(len(sent_s), line) - sent_s)[counts] * 1000 for line in (weights, versions)))


def _arrived_s(num_messages: int, line: Sequence[Landing]) -> Times:
    """When each message was in: message i is the one at offset i // PARTITIONS of partition i % PARTITIONS."""
    at_s = np.array([landing.at_s for landing in line] + [np.inf])
    found = np.full(num_messages, np.inf)
    for partition in range(PARTITIONS):
        reached = np.array([landing.offsets[partition] for landing in line])
        offsets = np.arange(partition, num_messages, PARTITIONS) // PARTITIONS
        found[partition::PARTITIONS] = at_s[np.searchsorted(reached, offsets, side="right")]
    return found


def _landed_by_dtrain(folder: Path) -> list[Landing]:
    """Every applied step: its time by the trainer, its rows by the log."""
    store = open_store(next((folder / "checkpoints").iterdir()))
    trace = np.concatenate(list(read_traces(folder).values()))
    applied_s: Mapping[int, float] = dict(zip(trace["number"].tolist(), trace["at_s"].tolist(), strict=True))
    offsets, line = [0] * PARTITIONS, list[Landing]()
    for entry in store.entries(store.find(None).progress, after=0):
        for item in entry.ranges:
            offsets[item.partition.number] = item.end.offset
        if entry.kind is StepKind.DATA:
            line.append(Landing(applied_s[entry.number], tuple(offsets)))
    return line


def _landed(file: Path) -> list[Landing]:
    """What the loop left."""
    records = np.fromfile(file, dtype=[("at_s", "<f8"), ("offsets", "<i8", (PARTITIONS,))])
    return [Landing(float(at_s), tuple(offsets.tolist())) for at_s, offsets in records]
