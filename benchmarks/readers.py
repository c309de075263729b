"""READERS: rows a second from a topic into weights with 1, 2, 4 readers, where reading is the work: JSON, a tiny model. No peer.

Two trainers, a topic of four partitions; beside the rate, `auto`'s. It grows until the broker or the cores are at their end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure
from benchmarks.p02_throughput import LONGEST_S, Case, measure, messages
from benchmarks.p06_systems import Dtrain
from benchmarks.world import a_broker, new_topic, produce
from deploy.kafka.broker import Broker

NUM_READERS = (1, 2, 4, "auto")
PARTITIONS = 4
CASE = Case("rows_a_s_json", "json", (16,), rows=4096, num_rows=1_200_000, goal=1.0)


def run(*, pairs: int) -> Iterator[Figure]:
    """Each number in turn; what each reaches beside one reader."""
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        topic = new_topic(broker, partitions=PARTITIONS)
        produce(broker, topic, messages(CASE), partitions=PARTITIONS)
        rates: dict[int | str, list[float]] = {number: [] for number in NUM_READERS}
        for _ in range(pairs):
            for number, found in rates.items():
                found.append(_rows_a_s(broker, topic, readers=number))
                print(f"  {number} readers on {os.cpu_count()} cores: {found[-1]:.0f} rows/s", flush=True)
    one = median(rates.pop(1))
    for number, found in rates.items():
        yield Figure.absolute(
            median(found),
            id="READERS",
            figure=f"rows_a_s_{number}",
            goal=one,
            is_more_better=True,
            peer=one,
            peer_name="dtrain with one reader",
            pairs=pairs,
        )


def _rows_a_s(broker: Broker, topic: str, *, readers: int | str) -> float:
    bounds = {"start": "earliest", "end": "latest"}
    source = {"topic": topic, "bootstrap": broker.bootstrap, "format": CASE.format, "readers": readers, **bounds}
    task = {"name": "readers", "task": "p01_workload:PerceptronTask", "params": {"hidden": list(CASE.hidden)}}
    system = Dtrain({**task, "source": source, "batch": {"rows": CASE.rows}})
    return measure(system, lambda: system.job.wait_for_end(timeout_s=LONGEST_S), broker=broker, case=CASE).rows_a_s
