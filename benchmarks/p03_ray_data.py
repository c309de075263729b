"""P3: rows a second from a topic into weights, and the time to the first step, against Ray Train on ray.data.read_kafka.

P2's small model and Arrow messages; two trainers. Both sides start from nothing, a Ray cluster included; the peer's stream is bounded, because it can read no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure, Pairs
from benchmarks.p02_throughput import CASES, LONGEST_S, NUM_RANKS, Case, Run, measure, messages, of_dtrain
from benchmarks.p06_systems import RayTrain
from benchmarks.peers import RAY_DATA
from benchmarks.world import a_broker, new_topic, produce
from deploy.kafka.broker import Broker

NUM_ROWS = 2_000_000


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure both in turn."""
    if why := RAY_DATA.install():
        print(f"  not measured: the peer could not be installed: {why}")
        return
    case = replace(CASES[0], num_rows=NUM_ROWS)
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        topic = new_topic(broker, partitions=NUM_RANKS)
        produce(broker, topic, messages(case), partitions=NUM_RANKS)
        both = [(of_dtrain(broker, topic, case), _of_peer(broker, topic, case)) for _ in range(pairs)]
    peer_name = f"Ray Train {version('ray')} + read_kafka"
    rate = _pairs([(ours.rows_a_s, theirs.rows_a_s) for ours, theirs in both])
    yield Figure.of(rate, id="P3", figure="rows_a_s", peer_name=peer_name, goal=2.0, is_more_better=True)
    first = _pairs([(ours.first_s, theirs.first_s) for ours, theirs in both])
    yield Figure.of(first, id="P3", figure="first_step_s", peer_name=peer_name, goal=1 / 5)


def _pairs(both: Sequence[tuple[float, float]]) -> Pairs:
    ours, theirs = zip(*both, strict=True)
    return Pairs(ours, theirs)


def _of_peer(broker: Broker, topic: str, case: Case) -> Run:
    options = [f"--bootstrap={broker.bootstrap}", f"--topic={topic}", f"--rows={case.rows}"]
    system = RayTrain("Ray Train", "p03_ray_train.py", RAY_DATA.interpreter, options)
    return measure(system, lambda: system.wait(timeout_s=LONGEST_S), broker=broker, case=case)
