"""P8: goodput under a kill every 5 s for 2 minutes, and records lost and doubled, against torchrun with a snapshot every 50 steps.

Two trainers on a topic of two partitions; the model has one weight a record id, so that the final weights say what became of each record.
Goodput is the number of records in the final model over that of a run without faults: at full CPU (all records are there from the start), and with a stream
paced at half of what the system itself did without faults, where the run without faults is the stream itself. Victims are rank 0 and
another rank in turn. Every system gets the same messages of 32 records; a step is 64.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.measure import Figure
from benchmarks.p06_recovery import present
from benchmarks.p06_systems import Dtrain, Torchrun
from benchmarks.traces import is_alive, live, read_traces
from benchmarks.world import a_broker, message, new_topic, produce
from deploy.kafka.broker import Broker
from dtrain.checkpoint.places import open_store
from dtrain.snapshot import read_state
from dtrain.spec.job import WorkersSpec

NUM_RANKS = 2
NUM_IDS = 1_500_000
IDS_A_MESSAGE = 32
ROWS = IDS_A_MESSAGE * NUM_RANKS
WINDOW_S = 120.0
KILL_EVERY_S = 5.0
CALM_S = 30.0
"""Of the run without faults."""
END_S = 120.0
"""For the last model to be written."""

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Life:
    """What became of the records of one run."""

    trained: int
    lost: int
    """Before the final positions, and in no weight."""
    doubled: int
    window_s: float
    kills: int

    @classmethod
    def of(cls, weights: Weights, *, offsets: Sequence[tuple[int, int]], window_s: float, kills: int) -> Life:
        """Count. `offsets`: per partition the next message, and the next record in it."""
        taken = np.zeros(len(weights), dtype=bool)
        numbers = np.arange(len(weights)) // IDS_A_MESSAGE  # of the messages
        for partition, (offset, row) in enumerate(offsets):
            here = numbers % NUM_RANKS == partition
            place = (numbers // NUM_RANKS, np.arange(len(weights)) % IDS_A_MESSAGE)
            taken |= here & ((place[0] < offset) | ((place[0] == offset) & (place[1] < row)))
        times = np.rint(-weights).astype(int)
        return cls(int((times > 0).sum()), int((taken & (times == 0)).sum()), int((times > 1).sum()), window_s, kills)


class Audited:
    """A system of P8: a job of dtrain's, or a loop; it can be ended, and its final model read."""

    def __init__(self, system: Dtrain | Torchrun, final: Callable[[Path], tuple[Weights, list[tuple[int, int]]]]) -> None:
        self.system = system
        self._final = final

    def live_through(self, *, window_s: float, kill_every_s: float | None, go: Callable[[], object]) -> Life:
        """Train from the first step on for so long, with kills; then end in good order and count."""
        with TemporaryDirectory(prefix="p8-") as name, ExitStack() as stack:
            folder = Path(name)
            self.system.open(folder, num_ranks=NUM_RANKS)
            stack.callback(self.system.close)
            _await_steps(folder)
            go()
            kills = _kill(self.system, window_s=window_s, every_s=kill_every_s)
            self._end(folder)
            weights, offsets = self._final(folder)
        return Life.of(weights, offsets=offsets, window_s=window_s, kills=kills)

    def _end(self, folder: Path) -> None:
        if isinstance(self.system, Dtrain):
            self.system.job.stop(timeout_s=END_S)
            return
        (folder / "stop").touch()
        deadline_s = time.monotonic() + END_S
        while live(read_traces(folder), within_s=5.0) and time.monotonic() < deadline_s:
            time.sleep(0.5)


def run(*, pairs: int) -> Iterator[Figure]:
    """Each system: without faults, with kills at full CPU, with kills and a paced stream."""
    if "spares" not in WorkersSpec.model_fields:
        print("  there is no `workers.spares` yet: dtrain is measured without one")
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        full = new_topic(broker, partitions=NUM_RANKS)
        produce(broker, full, _messages(), partitions=NUM_RANKS)
        lives: dict[tuple[str, str], list[Life]] = {}
        ratios: dict[tuple[str, str], list[float]] = {}
        names = _chosen()
        for _ in range(pairs):
            for name in names:
                for kind, life, ratio in _measure(name, broker, full):
                    print(f"  {name}, {kind}: {life}, goodput {ratio:.3f}", flush=True)
                    lives.setdefault((name, kind), []).append(life)
                    ratios.setdefault((name, kind), []).append(ratio)
    yield from _figures(names, lives, ratios)


def _chosen() -> list[str]:
    """Names of systems, by ONLY."""
    systems = [Torchrun(name, "") for name in ("dtrain", "torchrun careful", "torchrun auto-commit")]
    return [system.name for system in present(systems)]


def _measure(name: str, broker: Broker, full: str) -> Iterator[tuple[str, Life, float]]:
    """(kind of run, what became of the records, goodput)."""
    calm = _system(name, broker, full).live_through(window_s=CALM_S, kill_every_s=None, go=_nothing)
    capacity = calm.trained / calm.window_s  # rows/s
    yield "no faults", calm, 1.0
    life = _system(name, broker, full).live_through(window_s=WINDOW_S, kill_every_s=KILL_EVERY_S, go=_nothing)
    if life.trained >= NUM_IDS:
        raise SystemExit("the topic came to its end: raise NUM_IDS")
    yield "full", life, life.trained / (capacity * WINDOW_S)
    topic = new_topic(broker, partitions=NUM_RANKS)
    with Feed(broker, topic, rows_per_s=capacity / 2) as feed:
        life = _system(name, broker, topic).live_through(window_s=WINDOW_S, kill_every_s=KILL_EVERY_S, go=feed.begin)
        yield "paced", life, life.trained / feed.offered(WINDOW_S)


def _nothing() -> None:
    """The topic is full already."""


class Feed:
    """A stream at a steady pace. The first messages are there at once, so that the first step can be made; the others from `begin` on.

    Threads: one of its own produces.
    """

    NUM_FIRST = 64

    def __init__(self, broker: Broker, topic: str, *, rows_per_s: float) -> None:
        self._broker, self._topic, self._rows_per_s = broker, topic, rows_per_s
        self._has_begun, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._produce, name="feed", daemon=True)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._has_begun.set()
        self._thread.join()

    def begin(self) -> None:
        """Rows come from now on."""
        self._has_begun.set()

    def offered(self, window_s: float) -> float:
        """Rows that were there after so long."""
        return min(NUM_IDS, self.NUM_FIRST * IDS_A_MESSAGE + self._rows_per_s * window_s)

    def _produce(self) -> None:
        produce(self._broker, self._topic, self._paced(), partitions=NUM_RANKS)

    def _paced(self) -> Iterator[bytes]:
        began_s = 0.0
        for number, value in enumerate(_messages()):
            if number == self.NUM_FIRST:
                self._has_begun.wait()
                began_s = time.monotonic()
            ahead_s = (number - self.NUM_FIRST) * IDS_A_MESSAGE / self._rows_per_s - (time.monotonic() - began_s)
            if number > self.NUM_FIRST and ahead_s > 0.005:
                time.sleep(ahead_s)
            if self._is_over.is_set():
                return
            yield value


def _system(name: str, broker: Broker, topic: str) -> Audited:
    if name == "dtrain":
        spare = {"spares": 1} if "spares" in WorkersSpec.model_fields else {}
        job = {
            "name": "p8",
            "task": "p08_audit:AuditTask",
            "params": {"num_ids": NUM_IDS},
            "source": {"topic": topic, "bootstrap": broker.bootstrap, "start": "earliest"},
            "batch": {"rows": ROWS, "num_slices": 4},
            "train": {"reduction": "sum"},
            "workers": spare,
            "checkpoint": {"every": 1.0},
        }
        return Audited(Dtrain(job), lambda folder: _final_of_dtrain(folder, topic=topic))
    options = [f"--bootstrap={broker.bootstrap}", f"--topic={topic}", f"--num-ids={NUM_IDS}"]
    return Audited(
        Torchrun(name, "p08_torchrun.py", options=options + ["--is-careful"] * ("careful" in name)), _final_of_torchrun
    )


def _final_of_dtrain(folder: Path, *, topic: str) -> tuple[Weights, list[tuple[int, int]]]:
    store = open_store(next((folder / "checkpoints").iterdir()))
    manifest = store.find(None)
    weights = read_state(store, blob=manifest.blob, progress=manifest.progress).tensors["model/weight"].numpy().reshape(-1)
    places = {
        partition.number: position for partition, position in manifest.progress.positions.items() if partition.topic == topic
    }
    return weights, [(places[number].offset, places[number].row) for number in range(NUM_RANKS)]


def _final_of_torchrun(folder: Path) -> tuple[Weights, list[tuple[int, int]]]:
    saved: Mapping[str, Any] = torch.load(folder / "snapshot.pt")
    return saved["model"]["weight"].numpy().reshape(-1), [(offset, 0) for offset in saved["offsets"]]


def _messages() -> Iterator[bytes]:
    """Every id, once."""
    for first in range(0, NUM_IDS, IDS_A_MESSAGE):
        yield message({"id": np.arange(first, first + IDS_A_MESSAGE)})


def _await_steps(folder: Path) -> None:
    deadline_s = time.monotonic() + END_S
    while len(live(read_traces(folder), within_s=END_S)) < NUM_RANKS:
        if time.monotonic() > deadline_s:
            raise SystemExit("no step was made")
        time.sleep(0.1)


def _kill(system: Dtrain | Torchrun, *, window_s: float, every_s: float | None) -> int:
    """Wait for the window's end, killing rank 0 and another in turn where there is one; how many."""
    began_s, kills, turn = time.monotonic(), 0, 0
    while (left_s := began_s + window_s - time.monotonic()) > 0:
        if every_s is None or left_s <= every_s:
            time.sleep(left_s)
            break
        time.sleep(every_s)
        victim = system.ranks().get(turn % NUM_RANKS) if every_s else None
        turn += 1
        if victim is not None and is_alive(victim):
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                kills += 1
    return kills


def _figures(
    names: Sequence[str], lives: Mapping[tuple[str, str], Sequence[Life]], ratios: Mapping[tuple[str, str], Sequence[float]]
) -> Iterator[Figure]:
    for kind, goal in (("paced", 0.95), ("full", 0.65)):
        for name in names[1:]:
            yield Figure.absolute(
                median(ratios["dtrain", kind]),
                id="P8",
                figure=f"goodput_{kind}",
                goal=goal,
                is_more_better=True,
                peer=median(ratios[name, kind]),
                peer_name=name,
                pairs=len(ratios["dtrain", kind]),
            )
            for what in ("lost", "doubled"):
                yield Figure.absolute(
                    sum(getattr(life, what) for life in lives["dtrain", kind]),
                    id="P8",
                    figure=f"{what}_{kind}",
                    goal=0,
                    peer=sum(getattr(life, what) for life in lives[name, kind]),
                    peer_name=name,
                    pairs=len(ratios["dtrain", kind]),
                )
