"""P5: rows a second from a JSON topic to tensors, one row a message, against a hand-written kafka-python loop with `json.loads`.

One reader against the loop; then two readers, a partition each, against the same one loop. By both engines; the loop over librdkafka is no peer of the goal and
is not measured.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure, alternate
from benchmarks.p01_workload import rows
from benchmarks.p04_ingest import Case, rows_a_s, start
from benchmarks.world import a_broker, new_topic, produce
from deploy.kafka.broker import Broker

CASE = Case("json", "json", 1, num_rows=300_000)
"""The rows of each of two partitions."""
GOALS = {1: 4.0, 2: 6.0}


def run(*, pairs: int) -> Iterator[Figure]:
    """Measure one reader and two, by every engine."""
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        topic = new_topic(broker, partitions=2)
        produce(broker, topic, messages(2 * CASE.num_rows), partitions=2)
        for engine in ("kafka-python", "librdkafka"):
            for num_readers, goal in GOALS.items():
                print(f" {num_readers} readers by {engine}: {CASE.num_rows} rows each")
                measured = alternate(
                    lambda: _readers(broker, topic, f"dtrain-{engine}", num_readers),  # noqa: B023
                    lambda: rows_a_s(broker, topic, "kafka-python", CASE),
                    pairs=pairs,
                )
                figure, peer_name = f"rows_a_s_{num_readers}_{engine}", f"a loop over kafka-python {version('kafka-python')}"
                yield Figure.of(measured, id="P5", figure=figure, peer_name=peer_name, goal=goal, is_more_better=True)


def messages(num_rows: int) -> Iterator[bytes]:
    """An object a row."""
    few = [json.dumps({"x": x[i].tolist(), "y": float(y[i])}).encode() for x, y in rows(64) for i in range(len(y))]
    return itertools.islice(itertools.cycle(few), num_rows)


def _readers(broker: Broker, topic: str, side: str, num_readers: int) -> float:
    """What they reach together, at the same time."""
    running = [start(broker, topic, side, CASE, partition=number) for number in range(num_readers)]
    found = [json.loads(process.communicate(timeout=600)[0]) for process in running]
    total = sum(one["rows_a_s"] for one in found)
    print(f"   {side}: {total:.0f} rows/s, {sum(one['cpu_share'] for one in found):.2f} cores", flush=True)
    return float(total)
