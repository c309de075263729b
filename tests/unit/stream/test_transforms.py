"""Transforms against a model that looks at every row of a partition by itself, from wherever and in whatever parts it is read."""

from __future__ import annotations

import itertools
import sys
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.data.block import Block
from dtrain.data.held_out import is_held_out
from dtrain.data.schema import Schema
from dtrain.data.transforms import transforms_of
from dtrain.errors import DataLossError, InputError, TaskError
from dtrain.spec.job import JobSpec
from dtrain.steplog.blocks import merge_adjoining
from dtrain.steplog.fates import Fate
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import RowRange
from dtrain.stream import lookback, memory
from dtrain.stream.memory import MemorySource, MemoryTopic
from tests.support.messages import arrow

FEATURES = Schema({"y": "int64"})
PARTITION = Partition("t", 0)


@dataclass(frozen=True)
class Row:
    """A raw row and what must become of it."""

    at: Position
    y: int | None
    fate: Fate


@dataclass
class World:
    """A topic, a job, and the rows that the job should see."""

    topic: MemoryTopic
    spec: JobSpec
    rows: list[Row] = field(default_factory=list)

    def source(self) -> MemorySource:
        source = MemorySource(self.spec.source, {"t": self.topic})
        source.transform_rows(transforms_of(self.spec))
        return source

    @property
    def end(self) -> Position:
        return Position(self.topic.bounds[PARTITION].end)

    @property
    def places(self) -> list[Position]:
        return sorted({Position(0), self.end, *(row.at for row in self.rows)})


def spec_of(transform: dict[str, Any], *, held_out: float = 0.0, code: str = "") -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "t",
            "task": "a:B",
            "code": code,
            "source": {"topic": "t", "bootstrap": "memory:1"},
            "transform": transform,
            "train": {"seed": 7},
            "evaluate": {"held_out": held_out},
            "checkpoint": {"to": "/nowhere"},
        }
    )


Message = list[tuple[int | None, int]]  # rows of (y, what the key column holds); null is a bad row
messages = st.lists(st.tuples(st.none() | st.integers(-3, 6), st.integers(0, 4)), max_size=5)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Messages of 0 to 5 rows, some bad, with gaps; a job with any of the transforms."""
    window = draw(st.integers(1, 12))
    by = draw(st.sampled_from(["never", "k", "@key"]))
    has_filter, share = draw(st.booleans()), draw(st.sampled_from([0.0, 0.3]))
    transform = {
        "columns": {"k": "int32"},
        "filter": "y >= 0" if has_filter else "",
        "deduplicate": "never" if by == "never" else {"by": by, "window": window},
    }
    world = World(MemoryTopic("t"), spec_of(transform, held_out=share))
    seen: dict[object, int] = {}
    place = 0
    for message in draw(st.lists(messages, max_size=30)):
        key = draw(st.none() | st.sampled_from([b"a", b"b", b"a long key of more than sixteen bytes"]))
        value = arrow({"y": pa.array([y for y, _ in message], pa.int64()), "k": pa.array([k for _, k in message], pa.int64())})
        offset = world.topic.append(value, key=key, gap=draw(st.integers(0, 2)))
        is_known: bool | None = None
        for number, (y, k) in enumerate(message):
            fate = Fate.TRAINED
            if y is None:
                fate = Fate.REJECTED
            elif has_filter and y < 0:
                fate = Fate.FILTERED
            elif by != "never":
                name = k if by == "k" else key
                if by == "k" or is_known is None:
                    is_known = name is not None and place - seen.get(name, -(10**9)) <= window
                seen[name] = place
                fate = Fate.DUPLICATE if is_known else fate
            if fate is Fate.TRAINED and share:
                drawn = is_held_out(PARTITION, np.array([offset]), np.array([number]), seed=7, share=share)
                fate = Fate.HELD_OUT if drawn[0] else fate
            world.rows.append(Row(Position(offset, number), y, fate))
            place += 1
    world.topic.extend(draw(st.integers(0, 2)))
    return world


def read(source: MemorySource, start: Position, end: Position) -> list[Block]:
    blocks: list[Block] = []
    at = start
    with closing(source.follow({PARTITION: start}, schema=FEATURES, ends={PARTITION: end})) as feed:
        while at < end:
            for block in feed.poll(max_wait_s=0):
                assert block.meta.start == at
                assert block.batch.num_rows == block.meta.num_rows + block.meta.num_held_out
                assert block.batch.schema.equals(FEATURES.arrow)
                at = block.meta.end
                blocks.append(block)
    return blocks


def ys(blocks: list[Block], fate: Fate) -> list[int]:
    found = []
    for block in blocks:
        rows, middle = block.batch["y"].to_pylist(), block.meta.num_rows
        found += rows[:middle] if fate is Fate.TRAINED else rows[middle:]
    return found


def expected(world: World, fate: Fate, start: Position, end: Position) -> list[int | None]:
    return [row.y for row in world.rows if start <= row.at < end and row.fate is fate]


@pytest.mark.parametrize("poll_records", [1, 3, 1000])
@settings(deadline=None)
@given(worlds(), st.data())
def test_any_part_read_in_any_way_gives_each_row_its_fate(poll_records: int, world: World, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "POLL_RECORDS", poll_records)
        patch.setattr(lookback, "FIRST_OFFSETS", poll_records)
        start, end = sorted(data.draw(st.tuples(st.sampled_from(world.places), st.sampled_from(world.places))))
        blocks = read(world.source(), start, end)
        for fate in (Fate.TRAINED, Fate.HELD_OUT):
            assert ys(blocks, fate) == expected(world, fate, start, end)
        counts = [
            sum(getattr(b.meta.range_to_end(b.meta.start).left_out, name) for b in blocks) for name in ("filtered", "duplicate")
        ]
        assert counts == [len(expected(world, fate, start, end)) for fate in (Fate.FILTERED, Fate.DUPLICATE)]


@settings(deadline=None)
@given(worlds(), st.data())
def test_ranges_fetched_in_any_order_by_one_source_are_those_that_were_followed(world: World, data: st.DataObject) -> None:
    followed = read(world.source(), Position(0), world.end)
    cuts = sorted(data.draw(st.sets(st.sampled_from(world.places), max_size=6)))
    ranges = [range_of(followed, start, end) for start, end in itertools.pairwise(cuts)]
    asked = data.draw(st.permutations(ranges))
    size = data.draw(st.integers(1, 3))
    source = world.source()
    for first in range(0, len(asked), size):
        batches = source.fetch(asked[first : first + size], schema=FEATURES)
        for item, batch in zip(asked[first : first + size], batches, strict=True):
            trained = expected(world, Fate.TRAINED, item.start, item.end)
            held_out = expected(world, Fate.HELD_OUT, item.start, item.end)
            assert batch["y"].to_pylist() == [*trained, *held_out]


def range_of(blocks: list[Block], start: Position, end: Position) -> RowRange:
    """The range that steps over [start, end) would have."""
    parts = [
        block.meta._range(max(start, block.meta.start), min(end, block.meta.end))
        for block in blocks
        if max(start, block.meta.start) < min(end, block.meta.end)
    ]
    (whole,) = merge_adjoining(parts)
    return replace(whole, start=start, end=end)


def test_window_reaches_back_over_messages_of_many_rows_and_no_further_than_the_log() -> None:
    world = World(MemoryTopic("t"), spec_of({"columns": {"k": "int64"}, "deduplicate": {"by": "k", "window": 1000}}))
    for number in range(300):
        rows = range(100 * number, 100 * number + 100)
        world.topic.append(arrow({"y": pa.array(rows, pa.int64()), "k": pa.array([row % 950 for row in rows], pa.int64())}))
    start = Position(200, 50)
    assert ys(read(world.source(), start, world.end), Fate.TRAINED) == []  # every key came 950 rows before
    world.topic.delete_before(199)
    left = ys(read(world.source(), start, world.end), Fate.TRAINED)
    assert left == list(range(20_050, 19_900 + 950))  # what is not in the log any more is not remembered


def test_retention_that_takes_the_window_while_it_is_read_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(MemoryTopic("t"), spec_of({"columns": {"k": "int64"}, "deduplicate": {"by": "k", "window": 100}}))
    for number in range(50):
        world.topic.append(arrow({"y": [number], "k": [number]}))
    source = world.source()
    original = source._lookback._read  # type: ignore[union-attr]

    def late(*args: Any) -> Any:
        world.topic.delete_before(30)
        return original(*args)

    monkeypatch.setattr(source._lookback, "_read", late)
    assert ys(read(source, Position(40), world.end), Fate.TRAINED) == list(range(40, 50))


def test_replay_of_rows_whose_window_is_gone_is_refused() -> None:
    world = World(MemoryTopic("t"), spec_of({"columns": {"k": "int64"}, "deduplicate": {"by": "k", "window": 100}}))
    for number in range(20):
        world.topic.append(arrow({"y": [number], "k": [number % 5]}))
    followed = read(world.source(), Position(0), world.end)
    item = range_of(followed, Position(3), Position(10))
    assert item.num_rows == 2
    world.topic.delete_before(3)
    with pytest.raises(DataLossError, match="5 rows in place of 2"):
        world.source().fetch([item], schema=FEATURES)


MAPS = """\
import pyarrow as pa
import pyarrow.compute as pc

def double(batch):
    assert batch.schema.names == ["a", "b"]
    return pa.RecordBatch.from_pydict({"y": pc.add(pc.multiply(batch["a"], 2), batch["b"])})

def centred(batch):
    return pa.RecordBatch.from_pydict({"y": pc.cast(pc.subtract(batch["a"], pc.max(batch["a"])), "int64")})

def fewer(batch):
    return batch.slice(1)

def raising(batch):
    raise ValueError("no good")

def wrong(batch):
    return {"y": [1]}

def null(batch):
    return pa.RecordBatch.from_pydict({"y": pa.nulls(batch.num_rows, pa.int64())})

nothing = 3
"""


@pytest.fixture
def code(tmp_path: Path) -> Any:
    (tmp_path / "maps.py").write_text(MAPS)
    yield str(tmp_path)
    sys.modules.pop("maps", None)
    sys.path[:] = [path for path in sys.path if path != str(tmp_path)]


def mapped(code: str, name: str, *, filter: str = "") -> list[int]:  # noqa: A002 - as in the job file
    transform = {"columns": {"a": "int64", "b": "int64"}, "map": f"maps:{name}", "filter": filter}
    world = World(MemoryTopic("t"), spec_of(transform, code=code))
    for number in range(4):
        world.topic.append(arrow({"a": [number, number + 1], "b": [0, 100]}))
    return ys(read(world.source(), Position(0, 1), world.end), Fate.TRAINED)


def test_map_makes_the_tasks_columns_of_others_behind_the_filter(code: str) -> None:
    assert mapped(code, "double", filter="a != 2") == [102, 2, 106, 6, 108]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("centred", "makes something else of a row when fewer rows are with it"),
        ("fewer", "gave 3 rows for 4|gave 6 rows for 7"),
        ("raising", r"raised for t:0 from \(0, 1\) to \(4, 0\): ValueError: no good"),
        ("wrong", "gave dict, not a pyarrow.RecordBatch"),
        ("null", "column 'y' is null, in row 0 of"),
        ("nothing", "is not a function"),
        ("absent", "is not a function"),
    ],
)
def test_map_that_is_none_blocks_the_job_and_names_the_rows(code: str, name: str, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        mapped(code, name)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ({"filter": "price > 0"}, "'price' is no column of the task"),
        ({"filter": "y > 0", "columns": {"y": "int64"}}, "'y' is one of the task's columns already"),
        ({"filter": "y > 0", "columns": {"z": "int65"}}, "'int65' is not a type"),
        ({"deduplicate": {"by": "k", "window": 5}}, "'k' is no column of the task"),
        ({"deduplicate": {"by": "k", "window": 5}, "columns": {"k": "float32"}}, "'k' is float32"),
        ({"deduplicate": {"by": "k", "window": 5}, "columns": {"k": "int64[2]"}}, r"'k' is int64\[2\]"),
        (
            {"deduplicate": {"by": "k", "window": 5}, "columns": {"k": {"type": "int64", "buckets": 3}}},
            "'k' is one number for different integers",
        ),
        ({"deduplicate": {"by": "k", "window": 5}, "columns": {"k": {"type": "int64", "default": 0}}}, "'k' has a default"),
        ({"filter": "k > 5", "columns": {"k": {"type": "int64", "buckets": 3}}}, "'k' is hashed"),
        ({"filter": "k[1] > 5", "columns": {"k": {"type": "int64[2]", "buckets": 3}}}, "'k' is hashed"),
    ],
)
def test_transform_that_does_not_fit_is_refused_before_any_row(transform: dict[str, Any], words: str) -> None:
    world = World(MemoryTopic("t"), spec_of(transform))
    with pytest.raises(InputError, match=words):
        read(world.source(), Position(0), Position(1))


def test_decode_of_one_record_takes_no_transform_and_reads_no_window(code: str) -> None:
    """As a repaired letter is looked at: the map may raise for it, and its window is nobody's."""
    transform = {"map": "maps:raising", "columns": {"y": "int64"}, "deduplicate": {"by": "y", "window": 5}}
    world = World(MemoryTopic("t"), spec_of(transform, code=code))
    world.topic.append(arrow({"y": pa.array([1, 1], pa.int64())}))
    (record,) = world.topic.records[PARTITION]
    source = world.source()
    world.topic.delete_before(1)
    block = source.decode(record, partition=PARTITION, schema=Schema({"y": "int64"}))
    assert (list(block.meta.raw_rows), block.meta.rejects) == ([2], ())


def test_texts_are_filtered_and_are_keys_without_being_features() -> None:
    transform = {
        "columns": {"id": "string"},
        "filter": "carrier in ['AA', 'UA'] and carrier != 'UA'",
        "deduplicate": {"by": "id", "window": 10},
    }
    world = World(MemoryTopic("t"), spec_of(transform))
    carriers, ids = ["AA", "UA", "DL", "AA", "AA"], ["a", "b", "c", "a", "d"]
    world.topic.append(arrow({"y": pa.array(range(5), pa.int64()), "carrier": carriers, "id": ids}))
    assert ys(read(world.source(), Position(0), world.end), Fate.TRAINED) == [0, 4]


def test_held_out_share_is_about_that_and_another_seed_draws_others() -> None:
    offsets, rows = np.arange(100_000) // 10, np.arange(100_000) % 10
    drawn = [is_held_out(PARTITION, offsets, rows, seed=seed, share=0.01) for seed in (1, 2)]
    assert [round(d.mean(), 3) for d in drawn] == [0.01, 0.01]
    assert (drawn[0] & drawn[1]).sum() < 50
    other = is_held_out(Partition("t", 1), offsets, rows, seed=1, share=0.01)
    assert (drawn[0] & other).sum() < 50
