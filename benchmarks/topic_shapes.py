"""What a topic's shape is worth: rows a second that one reader makes of it, by rows a message and format.

python -m benchmarks.topic_shapes              measures, prints the table
python -m benchmarks.topic_shapes --write      puts it into docs/topics.md too, between its markers

Measured is what `dtrain` does in a reader's process: Kafka → messages → decoded rows of the task's schema, as Arrow blocks; one partition, from its
beginning to its end, a broker on the same machine, the median of several runs. Every shape carries the same rows: sixteen float32 features and a label.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import machine
from benchmarks.world import a_broker, new_topic, produce
from deploy.kafka.broker import Broker
from dtrain.data.schema import Schema
from dtrain.data.shaping import ipc_stream
from dtrain.spec.job import SourceSpec
from dtrain.stream.kafka import KafkaSource

PAGE = Path(__file__).parents[1] / "docs" / "topics.md"
MARKERS = ("<!-- measured by benchmarks/topic_shapes.py -->", "<!-- end of what was measured -->")
NUM_FEATURES = 16
MOST_MESSAGES = 100_000
MOST_ROWS = 4_000_000

Rows = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to write rows."""

    words: str
    format: str
    rows: int
    """Of a message."""
    columns: dict[str, str]
    write: Callable[[Rows], bytes]

    @property
    def num_messages(self) -> int:
        """Enough for seconds of reading."""
        return min(MOST_MESSAGES, MOST_ROWS // self.rows)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a shape came to."""

    shape: Shape
    rows_a_s: float
    bytes_a_row: float


def as_list(rows: Rows) -> bytes:
    """An Arrow stream: the features as one column of lists, the label."""
    return ipc_stream(
        pa.record_batch(
            {"x": pa.FixedSizeListArray.from_arrays(pa.array(rows[:, :-1].reshape(-1)), NUM_FEATURES), "y": rows[:, -1]}
        )
    )


def as_columns(rows: Rows) -> bytes:
    """An Arrow stream: a column for each feature, the label."""
    names = [*(f"x{i}" for i in range(NUM_FEATURES)), "y"]
    return ipc_stream(pa.record_batch({name: rows[:, i] for i, name in enumerate(names)}))


def as_json(rows: Rows) -> bytes:
    """A JSON object in each line."""
    return "\n".join(json.dumps({"x": [round(value, 6) for value in row[:-1]], "y": row[-1]}) for row in rows.tolist()).encode()


LIST = {"x": f"float32[{NUM_FEATURES}]", "y": "float32"}
COLUMNS = {**{f"x{i}": "float32" for i in range(NUM_FEATURES)}, "y": "float32"}
SHAPES = (
    *(Shape("Arrow, features as one list column", "arrow", rows, LIST, as_list) for rows in (1, 16, 128, 1024, 8192)),
    Shape("Arrow, a column a feature", "arrow", 1024, COLUMNS, as_columns),
    Shape("JSON, one object", "json", 1, LIST, as_json),
    Shape("JSON, an object in each line", "json", 128, LIST, as_json),
    Shape("JSON, an object in each line", "json", 1024, LIST, as_json),
)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.topic_shapes", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="of each shape; the median counts")
    parser.add_argument("--share", type=float, default=1.0, help="of the messages; less for a trial")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    args = parser.parse_args()
    about = machine.describe()
    print(about)
    with TemporaryDirectory() as folder, a_broker(Path(folder)) as broker:
        found = [measure(broker, shape, runs=args.runs, share=args.share) for shape in SHAPES]
    text = table(found, about=about)
    print(f"\n{text}")
    if args.write:
        PAGE.write_text(filled(PAGE.read_text(), text))


def measure(broker: Broker, shape: Shape, *, runs: int, share: float) -> Measured:
    """A topic of this shape is written once and read `runs` times."""
    num_messages = max(1, int(shape.num_messages * share))
    values = written(shape)
    topic = new_topic(broker)
    produce(broker, topic, itertools.islice(itertools.cycle(values), num_messages))
    source = SourceSpec.model_validate(
        {"topic": topic, "bootstrap": broker.bootstrap, "format": shape.format, "start": "earliest", "end": "latest"}
    )
    times_s = [read(source, Schema(shape.columns), num_rows=num_messages * shape.rows) for _ in range(runs)]
    rate = num_messages * shape.rows / median(times_s)
    print(
        f"  {shape.words}, {shape.rows} a message: {rate:,.0f} rows/s ({min(times_s):.2f} to {max(times_s):.2f} s)", flush=True
    )
    return Measured(shape, rate, sum(map(len, values)) / len(values) / shape.rows)


def written(shape: Shape) -> list[bytes]:
    """A few different messages of this shape."""
    random = np.random.default_rng(7)
    return [shape.write(random.random((shape.rows, NUM_FEATURES + 1), dtype=np.float32)) for _ in range(16)]


def read(spec: SourceSpec, schema: Schema, *, num_rows: int) -> float:
    """Seconds from the first block to the last one's end, as a reader would read them."""
    with closing(KafkaSource(spec)) as source:
        ends = source.resolve_end()
        with closing(source.follow(source.resolve_start(), schema=schema, ends=ends)) as feed:
            began_s, left = time.perf_counter(), num_rows
            while left:
                left -= sum(block.meta.num_rows for block in feed.poll(max_wait_s=1.0))
            return time.perf_counter() - began_s


def table(found: list[Measured], *, about: str) -> str:
    """What was measured, for the page."""
    base = next(each.rows_a_s for each in found if each.shape.rows == 1 and each.shape.format == "arrow")
    lines = ["| a message is | rows in it | bytes a row | rows a second | |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {each.shape.words} | {each.shape.rows:,} | {each.bytes_a_row:,.0f} | {each.rows_a_s:,.0f} | {each.rows_a_s / base:,.1f}x |"
        for each in found
    ]
    return "\n".join([*lines, "", *(f"{line}  " for line in about.splitlines())])


def filled(page: str, text: str) -> str:
    """`page` with `text` between its markers."""
    before, rest = page.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    return f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}"


if __name__ == "__main__":
    main()
