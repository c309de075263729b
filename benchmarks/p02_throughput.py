"""P2: rows a second from a topic into weights, against `torchrun` DDP on a hand-written kafka-python loop that prefetches.

Two trainers, the same topic of two partitions, read from its beginning to its end; model, optimizer and rows a step as in P1. dtrain is a whole
job: reader, coordinator, two trainers on Ray. The rate is that of the trainers' own records of applied steps, the first fifth dropped; start-up
is told apart, and so is the broker's CPU.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from benchmarks.measure import Figure, alternate
from benchmarks.p01_workload import NUM_FEATURES, rows
from benchmarks.p06_systems import Dtrain, Scripts, Torchrun
from benchmarks.traces import read_traces
from benchmarks.world import a_broker, cpu_s, message, new_topic, produce
from deploy.kafka.broker import Broker

NUM_RANKS = 2
ROWS_A_MESSAGE = 1024
DROPPED = 5
"""One part in so many of the steps is warm-up."""
LONGEST_S = 300.0


@dataclass(frozen=True, slots=True)
class Case:
    """A model, how its rows are written, `rows` a step, and how many rows in all."""

    figure: str
    format: str
    hidden: tuple[int, ...]
    rows: int
    num_rows: int
    goal: float


CASES = (
    Case("rows_a_s_arrow_small", "arrow", (128, 128), rows=512, num_rows=4_000_000, goal=1.25),
    Case("rows_a_s_arrow_large", "arrow", (1024, 1024), rows=1024, num_rows=400_000, goal=1.0),
    Case("rows_a_s_json", "json", (128, 128), rows=512, num_rows=600_000, goal=2.0),
)


@dataclass(frozen=True, slots=True)
class Run:
    """What a run came to."""

    rows_a_s: float
    first_s: float
    """From nothing to the first applied step."""


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure every case."""
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        for case in CASES:
            topic = new_topic(broker, partitions=NUM_RANKS)
            produce(broker, topic, messages(case), partitions=NUM_RANKS)
            print(f" {case.figure}: hidden {case.hidden}, {case.rows} rows a step, {case.num_rows} rows")
            measured = alternate(
                lambda: of_dtrain(broker, topic, case).rows_a_s,  # noqa: B023
                lambda: _of_peer(broker, topic, case).rows_a_s,  # noqa: B023
                pairs=pairs,
            )
            peer_name = f"torchrun {version('torch')} + kafka-python {version('kafka-python')}"
            yield Figure.of(measured, id="P2", figure=case.figure, peer_name=peer_name, goal=case.goal, is_more_better=True)


def messages(case: Case) -> Iterator[bytes]:
    """All rows: many to an Arrow message, one to a JSON object."""
    found = rows(ROWS_A_MESSAGE)
    if case.format == "arrow":
        few = [
            message({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), NUM_FEATURES), "y": y}) for x, y in found
        ]
        return itertools.islice(itertools.cycle(few), case.num_rows // ROWS_A_MESSAGE // NUM_RANKS * NUM_RANKS)
    objects = [json.dumps({"x": x[i].tolist(), "y": float(y[i])}).encode() for x, y in found for i in range(len(y))]
    return itertools.islice(itertools.cycle(objects), case.num_rows)


def of_dtrain(broker: Broker, topic: str, case: Case) -> Run:
    """A whole job."""
    source = {"topic": topic, "bootstrap": broker.bootstrap, "format": case.format, "start": "earliest", "end": "latest"}
    task = {"name": "p2", "task": "p01_workload:PerceptronTask", "params": {"hidden": list(case.hidden)}}
    system = Dtrain({**task, "source": source, "batch": {"rows": case.rows}})
    return measure(system, lambda: system.job.wait_for_end(timeout_s=LONGEST_S), broker=broker, case=case)


def _of_peer(broker: Broker, topic: str, case: Case) -> Run:
    hidden = ",".join(map(str, case.hidden))
    options = [
        f"--bootstrap={broker.bootstrap}",
        f"--topic={topic}",
        f"--format={case.format}",
        f"--rows={case.rows}",
        f"--hidden={hidden}",
    ]
    system = Torchrun("peer", "p02_loop.py", options=options)
    return measure(system, lambda: system.wait(timeout_s=LONGEST_S), broker=broker, case=case)


def measure(system: Dtrain | Scripts, wait: Callable[[], None], *, broker: Broker, case: Case) -> Run:
    """Start `system`, and `wait` until it has come to the topic's end."""
    with TemporaryDirectory(prefix="p2-") as name:
        folder, began_s, broker_s = Path(name), time.monotonic(), cpu_s(broker.pid) if broker.pid else 0.0
        system.open(folder, num_ranks=NUM_RANKS)
        try:
            wait()
        finally:
            system.close()
        traces = [trace for trace in read_traces(folder).values() if len(trace) > DROPPED]
    if not traces:
        raise SystemExit(f"{system.name} has made no steps")
    broker_s = cpu_s(broker.pid) - broker_s if broker.pid else float("nan")
    first_s = min(trace["at_s"][0] for trace in traces) - began_s
    kept = [trace["at_s"][len(trace) // DROPPED :] for trace in traces]
    rate = float(np.mean([case.rows * (len(at_s) - 1) / (at_s[-1] - at_s[0]) for at_s in kept]))
    print(f"   {system.name}: {rate:.0f} rows/s, first step after {first_s:.1f} s, broker {broker_s:.1f} CPU s", flush=True)
    return Run(rate, first_s)
