"""P4: rows a second from a topic to tensors, by each engine against a loop written by hand over the same client.

17 float32 a row: 1,024 and 128 rows a message as Arrow, and one row of 68 bytes a message. One partition, one process a side; the first fifth of the rows is
warm-up. The broker is a process of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from benchmarks.measure import Figure, alternate
from benchmarks.p01_workload import NUM_FEATURES, rows
from benchmarks.world import a_broker, cpu_s, message, new_topic, produce
from deploy.kafka.broker import Broker

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Case:
    """How rows are written: `rows_a_message` of them as `format`, `num_rows` in all."""

    figure: str
    format: str
    rows_a_message: int
    num_rows: int


CASES = (
    Case("1024_rows_a_message", "arrow", 1024, num_rows=24_000 * 1024),
    Case("128_rows_a_message", "arrow", 128, num_rows=100_000 * 128),
    Case("one_row_a_message", "raw", 1, num_rows=1_500_000),
)
GOALS = {"kafka-python": 2.0, "librdkafka": 0.9}


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure every case by every engine."""
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        for case in CASES:
            topic = new_topic(broker)
            produce(broker, topic, messages(case))
            for engine, goal in GOALS.items():
                print(f" {case.figure} by {engine}: {case.num_rows} rows")
                measured = alternate(
                    lambda: rows_a_s(broker, topic, f"dtrain-{engine}", case),  # noqa: B023
                    lambda: rows_a_s(broker, topic, engine, case),  # noqa: B023
                    pairs=pairs,
                )
                client = {"kafka-python": "kafka-python", "librdkafka": "confluent-kafka"}[engine]
                figure, peer_name = f"rows_a_s_{case.figure}_{engine}", f"a loop over {client} {version(client)}"
                yield Figure.of(measured, id="P4", figure=figure, peer_name=peer_name, goal=goal, is_more_better=True)


def messages(case: Case) -> Iterator[bytes]:
    """All of them: a few, again and again."""
    if case.format == "arrow":
        few = [
            message({"x": pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), NUM_FEATURES), "y": y})
            for x, y in rows(case.rows_a_message)
        ]
    else:
        table = np.concatenate([np.column_stack((x, y)) for x, y in rows(64)])
        few = [row.tobytes() for row in table]
    return itertools.islice(itertools.cycle(few), case.num_rows // case.rows_a_message)


def rows_a_s(broker: Broker, topic: str, side: str, case: Case) -> float:
    """What a side reaches by itself."""
    broker_s = cpu_s(broker.pid) if broker.pid else 0.0
    found = json.loads(start(broker, topic, side, case).communicate(timeout=600)[0])
    broker_s = cpu_s(broker.pid) - broker_s if broker.pid else float("nan")
    print(f"   {side}: {found['rows_a_s']:.0f} rows/s, {found['cpu_share']:.2f} cores, broker {broker_s:.1f} CPU s", flush=True)
    return float(found["rows_a_s"])


def start(broker: Broker, topic: str, side: str, case: Case, *, partition: int = 0) -> subprocess.Popen[str]:
    """A side at work on a partition, which holds all rows of the case."""
    command = [sys.executable, "-m", "benchmarks.p04_sides", side, f"--bootstrap={broker.bootstrap}", f"--topic={topic}"]
    command += [f"--partition={partition}", f"--format={case.format}", f"--rows={case.num_rows}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
