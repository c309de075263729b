"""The contract of `Source` and `Feed`, over a real Kafka by both engines and over the twin in memory."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from dtrain.data.block import Block
from dtrain.data.schema import Schema
from dtrain.errors import DataLossError, InputError, NotFoundError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.moves import Move
from dtrain.steplog.positions import Mark, Partition, Position, Positions
from dtrain.steplog.ranges import Reject, RowRange, advance
from dtrain.stream.cursor import BLOCK_ROWS
from dtrain.stream.feed import Feed
from dtrain.stream.kafka import KafkaSource
from dtrain.stream.log import Identity
from dtrain.stream.memory import MemorySource, MemoryTopic
from dtrain.stream.source import Source
from tests.support.formats import KINDS, Kind, row
from tests.support.kafka import Kafka
from tests.support.messages import arrow, json_object

SCHEMA = Schema({"y": "int64"})


class Place(ABC):
    """Where topics are: what a test does to them from outside."""

    @abstractmethod
    def new_topic(self, *, partitions: int = 1) -> str: ...
    @abstractmethod
    def write(
        self, topic: str, values: Sequence[bytes | None], *, partition: int = 0, timestamps_ms: Sequence[int] | None = None
    ) -> list[int]: ...
    @abstractmethod
    def write_gap(self, topic: str, *, partition: int = 0) -> None:
        """Make some offsets that no record has."""

    @abstractmethod
    def delete_before(self, topic: str, offset: int) -> None: ...
    @abstractmethod
    def recreate(self, topic: str) -> None: ...
    @abstractmethod
    def delete(self, topic: str) -> None: ...
    @abstractmethod
    def add_partitions(self, topic: str, number: int) -> None: ...
    @abstractmethod
    def topics(self) -> list[str]: ...
    @abstractmethod
    def source(self, spec: SourceSpec) -> Source: ...
    @abstractmethod
    def letters(self, topic: str, source: Source) -> list[tuple[bytes, bytes | None, dict[str, bytes]]]: ...
    @abstractmethod
    def committed(self, group: str, source: Source) -> dict[Partition, int]: ...


class MemoryPlace(Place):
    def __init__(self) -> None:
        self.all: dict[str, MemoryTopic] = {}

    def new_topic(self, *, partitions: int = 1) -> str:
        name = f"t-{len(self.all)}"
        self.all[name] = MemoryTopic(name, partitions=partitions)
        return name

    def write(
        self, topic: str, values: Sequence[bytes | None], *, partition: int = 0, timestamps_ms: Sequence[int] | None = None
    ) -> list[int]:
        times = timestamps_ms or [0] * len(values)
        return [self.all[topic].append(v, partition=partition, timestamp_ms=t) for v, t in zip(values, times, strict=True)]

    def write_gap(self, topic: str, *, partition: int = 0) -> None:
        self.all[topic].extend(3, partition=partition)

    def delete_before(self, topic: str, offset: int) -> None:
        self.all[topic].delete_before(offset)

    def recreate(self, topic: str) -> None:
        self.all[topic].recreate()

    def delete(self, topic: str) -> None:
        del self.all[topic]

    def add_partitions(self, topic: str, number: int) -> None:
        self.all[topic].add_partitions(number)

    def topics(self) -> list[str]:
        return list(self.all)

    def source(self, spec: SourceSpec) -> Source:
        return MemorySource(spec, self.all)

    def letters(self, topic: str, source: Source) -> list[tuple[bytes, bytes | None, dict[str, bytes]]]:
        assert isinstance(source, MemorySource)
        return [(letter.key, letter.value, dict(letter.headers)) for letter in source.log.sent.get(topic, [])]

    def committed(self, group: str, source: Source) -> dict[Partition, int]:
        assert isinstance(source, MemorySource)
        return source.log.committed[group]


class KafkaPlace(Place):
    def __init__(self, kafka: Kafka, *, engine: str) -> None:
        self.kafka = kafka
        self.engine = engine

    def new_topic(self, *, partitions: int = 1) -> str:
        return self.kafka.new_topic(partitions=partitions)

    def write(
        self, topic: str, values: Sequence[bytes | None], *, partition: int = 0, timestamps_ms: Sequence[int] | None = None
    ) -> list[int]:
        return self.kafka.produce(topic, partition, values, timestamps_ms=timestamps_ms)

    def write_gap(self, topic: str, *, partition: int = 0) -> None:
        self.kafka.produce_aborted(topic, partition, [b"never", b"seen"])

    def delete_before(self, topic: str, offset: int) -> None:
        self.kafka.delete_before(topic, 0, offset)

    def recreate(self, topic: str) -> None:
        self.kafka.recreate(topic)

    def delete(self, topic: str) -> None:
        self.kafka.delete(topic)

    def add_partitions(self, topic: str, number: int) -> None:
        self.kafka.add_partitions(topic, number)

    def topics(self) -> list[str]:
        with self.kafka.admin() as admin:
            return list(admin.list_topics())

    def source(self, spec: SourceSpec) -> Source:
        return KafkaSource(spec.model_copy(update={"engine": self.engine}))

    def letters(self, topic: str, source: Source) -> list[tuple[bytes, bytes | None, dict[str, bytes]]]:
        return [(r.key, r.value, dict(r.headers)) for r in self.kafka.read(topic)] if topic in self.topics() else []

    def committed(self, group: str, source: Source) -> dict[Partition, int]:
        with self.kafka.admin() as admin:
            found = admin.list_group_offsets({group: None})[group]
        return {Partition(tp.topic, tp.partition): stored.offset for tp, stored in found.items()}


@pytest.fixture(params=["memory", "kafka-python", "librdkafka"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("dtrain.stream.losses.GRACE_S", 0.1 if request.param == "memory" else 1.0)  # no broker returns here
    return MemoryPlace() if request.param == "memory" else KafkaPlace(request.getfixturevalue("kafka"), engine=request.param)


@pytest.fixture
def opened(place: Place) -> Iterator[Any]:
    """Makes sources, and closes them."""
    sources: list[Source] = []

    def open_source(topic: str, **fields: Any) -> Source:
        bootstrap = place.kafka.bootstrap if isinstance(place, KafkaPlace) else "memory:1"
        sources.append(place.source(SourceSpec.model_validate({"topic": topic, "bootstrap": bootstrap} | fields)))
        return sources[-1]

    yield open_source
    for source in sources:
        source.close()
        source.close()


def drain(source: Source, positions: Positions, ends: Positions, **options: Any) -> list[Block]:
    """All blocks from `positions` to `ends`, checked to tile every partition."""
    at, blocks = dict(positions), []
    deadline = time.monotonic() + 90
    with closing(source.follow(positions, schema=SCHEMA, ends=ends, **options)) as feed:
        while any(at[partition] < ends[partition] for partition in at):
            assert time.monotonic() < deadline
            for block in feed.poll(max_wait_s=0.2):
                assert block.meta.start == at[block.meta.partition]
                assert block.meta.num_rows == block.batch.num_rows
                assert block.batch.schema.equals(SCHEMA.arrow)
                at[block.meta.partition] = block.meta.end
                blocks.append(block)
        assert list(feed.poll(max_wait_s=0)) == []
        feed.close()
    assert at == {partition: max(positions[partition], ends[partition]) for partition in at}
    return blocks


def poll_for(feed: Feed, *, max_wait_s: float) -> list[Block]:
    """Poll until it raises, or for so long."""
    deadline, blocks = time.monotonic() + max_wait_s, list[Block]()
    while time.monotonic() < deadline:
        blocks += feed.poll(max_wait_s=0.2)
    return blocks


def ys(blocks: Sequence[Block]) -> list[int]:
    return [y for block in blocks for y in block.batch["y"].to_pylist()]


def arrow_ys(*rows: int | None) -> bytes:
    return arrow({"y": pa.array(rows, pa.int64())})


MESSAGES = [arrow_ys(0, 1, 2), b"bad", arrow_ys(3), None, arrow_ys(), arrow_ys(4, None, 5, None), arrow_ys(6, 7), b""]
"""Of every kind, a tombstone among them; the numbers are the good rows."""


@pytest.fixture
def filled(place: Place) -> str:
    """A topic with MESSAGES, a gap after the second and one at the end."""
    topic = place.new_topic()
    place.write(topic, MESSAGES[:2])
    place.write_gap(topic)
    place.write(topic, MESSAGES[2:])
    place.write_gap(topic)
    return topic


def whole(source: Source) -> list[Block]:
    ends = source.resolve_end()
    assert ends is not None
    return drain(source, source.resolve_start(), ends)


def all_places(blocks: Sequence[Block]) -> list[Position]:
    """Every coordinate that a job may stand at."""
    found = {blocks[-1].meta.end}
    for block in blocks:
        for offset, raw_rows in zip(block.meta.offsets, block.meta.raw_rows, strict=True):
            found |= {Position(offset, row) for row in range(max(1, raw_rows))}
    return sorted(found)


def test_follow_gives_every_row_once_with_rejects_by_coordinate(opened: Any, filled: str) -> None:
    blocks = whole(opened(filled, start="earliest", end="latest"))
    assert ys(blocks) == [0, 1, 2, 3, 4, 5, 6, 7]
    offsets = [offset for block in blocks for offset in block.meta.offsets]
    assert len(offsets) == len(MESSAGES) - 1
    rejects = [(offsets.index(r.offset), r.row) for block in blocks for r in block.meta.rejects]
    assert rejects == [(1, 0), (4, 1), (4, 3), (6, 0)]
    assert blocks[-1].meta.end.offset > offsets[-1] + 1


def test_follow_from_every_place_gives_exactly_what_is_left(opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    blocks, (partition, end) = whole(source), *source.resolve_end().items()
    for start in all_places(blocks):
        done = sum(block.meta.rows_before(start) for block in blocks)
        assert ys(drain(source, {partition: start}, {partition: end})) == list(range(done, 8))


def test_follow_to_every_place_stops_right_there(opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    blocks, (partition, start) = whole(source), *source.resolve_start().items()
    for end in all_places(blocks):
        count = sum(block.meta.rows_before(end) for block in blocks)
        found = drain(source, {partition: start}, {partition: end})
        assert ys(found) == list(range(count))
        assert all((r.offset, r.row) < end for block in found for r in block.meta.rejects)


def test_follow_without_end_gets_what_is_written_later(place: Place, opened: Any) -> None:
    topic = place.new_topic(partitions=2)
    source = opened(topic, start="earliest")
    assert source.resolve_end() is None
    with closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=None)) as feed:
        assert list(feed.poll(max_wait_s=0.1)) == []
        for number in range(6):
            place.write(topic, [arrow_ys(number)], partition=number % 2)
            found: list[Block] = []
            while not found:
                found += feed.poll(max_wait_s=5)
            assert (ys(found), found[0].meta.partition.number) == ([number], number % 2)
        assert {p.number: offset for p, offset in feed.end_offsets().items()} == {0: 3, 1: 3}


def test_follow_of_several_partitions_keeps_each_in_order(place: Place, opened: Any) -> None:
    topic = place.new_topic(partitions=3)
    for partition in range(3):
        place.write(topic, [arrow_ys(partition * 1000 + i) for i in range(partition * 40)], partition=partition)
    blocks = whole(opened(topic, start="earliest", end="latest"))
    for partition in range(3):
        mine = [block for block in blocks if block.meta.partition.number == partition]
        assert ys(mine) == [partition * 1000 + i for i in range(partition * 40)]


def test_follow_holding_a_partition_gives_the_others_and_then_all_of_it(place: Place, opened: Any) -> None:
    topic = place.new_topic(partitions=2)
    for partition in range(2):
        place.write(topic, [arrow_ys(partition * 1000 + i) for i in range(30)], partition=partition)
    source = opened(topic, start="earliest", end="latest")
    with closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=source.resolve_end())) as feed:
        feed.hold({Partition(topic, 0)})
        held: list[Block] = []
        while len(ys(held)) < 30:
            held += feed.poll(max_wait_s=5)
        assert ys([*held, *feed.poll(max_wait_s=0.3)]) == list(range(1000, 1030))
        feed.hold(())
        released: list[Block] = []
        while len(ys(released)) < 30:
            released += feed.poll(max_wait_s=5)
        assert ys(released) == list(range(30))


def test_follow_of_json_gives_rows_in_bounded_blocks(place: Place, opened: Any) -> None:
    topic = place.new_topic()
    place.write(topic, [json_object(y=i) for i in range(BLOCK_ROWS + 600)])
    blocks = whole(opened(topic, start="earliest", end="latest", format="json"))
    assert ys(blocks) == list(range(BLOCK_ROWS + 600))
    assert max(block.meta.num_rows for block in blocks) <= BLOCK_ROWS


def test_end_offsets_tell_the_newest_end(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    ((partition, end),) = source.resolve_end().items()
    with closing(source.follow({partition: end}, schema=SCHEMA, ends=None)) as feed:
        feed.poll(max_wait_s=0)
        assert feed.end_offsets() == {partition: end.offset}


def cut(blocks: Sequence[Block], rows: int) -> list[RowRange]:
    """Steps of `rows` rows, as a coordinator cuts them."""
    ranges = []
    for block in blocks:
        at = block.meta.start
        for stop in range(rows, block.meta.num_rows, rows):
            ranges.append(block.meta.range_to(at, stop))
            at = ranges[-1].end
        ranges.append(block.meta.range_to_end(at))
    return ranges


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_fetch_gives_the_rows_that_were_followed(opened: Any, filled: str, rows: int) -> None:
    source = opened(filled, start="earliest", end="latest")
    blocks = whole(source)
    ranges = cut(blocks, rows)
    assert advance(source.resolve_start(), ranges) == source.resolve_end()
    for order in (ranges, ranges[::-1], ranges[1::2]):
        batches = source.fetch(order, schema=SCHEMA)
        assert [batch.num_rows for batch in batches] == [item.num_rows for item in order]
    assert [y for batch in source.fetch(ranges, schema=SCHEMA) for y in batch["y"].to_pylist()] == ys(blocks)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_fetch_of_any_format_gives_the_rows_that_were_followed(place: Place, opened: Any, kind: Kind) -> None:
    """To the row, in the middle of messages, with bad rows and bad messages between."""
    topic = place.new_topic()
    sizes = [3, 1, 4, 2, 5] if kind.has_many else [1] * 15
    numbers = iter([None if i % 7 == 3 else i for i in range(15)])
    values = [kind.write([row(next(numbers)) for _ in range(size)]) for size in sizes]
    place.write(topic, [*values[:2], b"not this", *values[2:]])
    source = opened(topic, start="earliest", end="latest", format=kind.spec)
    blocks = whole(source)
    assert ys(blocks) == [i for i in range(15) if i % 7 != 3]
    assert sum(len(block.meta.rejects) for block in blocks) == 3
    ranges = cut(blocks, 2)
    assert advance(source.resolve_start(), ranges) == source.resolve_end()
    assert [y for batch in source.fetch(ranges, schema=SCHEMA) for y in batch["y"].to_pylist()] == ys(blocks)
    assert [r.offset for item in ranges for r in item.rejects] == [r.offset for block in blocks for r in block.meta.rejects]


def test_fetch_of_ranges_far_apart_and_of_several_partitions_keeps_their_order(place: Place, opened: Any) -> None:
    topic = place.new_topic(partitions=2)
    for partition in range(2):
        place.write(topic, [arrow_ys(partition * 10_000 + i) for i in range(3000)], partition=partition)
    source = opened(topic, start="earliest", end="latest")
    chosen = [item for item in cut(whole(source), 10) if item.start.offset < 50 or item.start.offset > 2900]
    found = [batch["y"].to_pylist() for batch in source.fetch(chosen, schema=SCHEMA)]
    expected = [[r.partition.number * 10_000 + i for i in range(r.start.offset, r.start.offset + r.num_rows)] for r in chosen]
    assert found == expected


@pytest.mark.parametrize("change", [{"last_crc": 1}, {"num_rows": 2}, {"num_rows": 9}])
def test_fetch_of_rows_that_are_others_now_is_a_data_loss(opened: Any, filled: str, change: dict[str, int]) -> None:
    source = opened(filled, start="earliest", end="latest")
    (item,) = [item for item in cut(whole(source), 3) if item.start == Position(0)]
    with pytest.raises(DataLossError, match=item.partition.topic):
        source.fetch([dataclasses.replace(item, **change)], schema=SCHEMA)


def test_fetch_of_deleted_rows_is_a_data_loss(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    ranges = cut(whole(source), 2)
    place.delete_before(filled, 1)
    with pytest.raises(DataLossError, match="from offset 0 to 0 were deleted"):
        source.fetch(ranges, schema=SCHEMA)


def test_fetch_behind_the_end_is_a_data_loss(opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    ((partition, end),) = source.resolve_end().items()
    with pytest.raises(DataLossError, match="cut short"):
        source.fetch([RowRange(partition, end, Position(end.offset + 5), 5)], schema=SCHEMA)


def test_identify_tells_a_recreated_topic_apart(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    before, ends = source.identify(), source.resolve_end()
    assert source.identify() == before == Identity.from_json(before.to_json())
    drain(source, source.resolve_start(), ends, identity=before)
    place.recreate(filled)
    assert source.identify().topic_ids[filled] != before.topic_ids[filled]
    with pytest.raises(DataLossError, match="made anew"):
        source.follow(ends, schema=SCHEMA, ends=None, identity=before)


def test_follow_of_a_known_topic_that_is_gone_is_a_data_loss(opened: Any) -> None:
    partition = Partition("was-here", 0)
    with pytest.raises(DataLossError, match="the topic was deleted"):
        opened("was-here").follow({partition: Position(0)}, schema=SCHEMA, ends=None, identity=Identity({"was-here": "id"}))


def test_follow_notices_that_its_topic_is_recreated(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    with closing(source.follow(source.resolve_end(), schema=SCHEMA, ends=None)) as feed:
        assert list(feed.poll(max_wait_s=0.5)) == []
        place.recreate(filled)
        place.write(filled, [arrow_ys(i) for i in range(100)])
        with pytest.raises(DataLossError, match=r"made anew|cut short"):
            poll_for(feed, max_wait_s=30)


def last_mark(blocks: Sequence[Block]) -> Mark:
    meta = [block.meta for block in blocks if block.meta.offsets][-1]  # the last of all may be a gap alone
    return Mark(meta.offsets[-1], meta.crcs[-1])


def test_follow_with_the_right_mark_goes_on(opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    blocks, ends = whole(source), source.resolve_end()
    assert drain(source, ends, ends, marks={next(iter(ends)): last_mark(blocks)}) == []


def test_follow_with_another_record_at_the_mark_is_a_data_loss(opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    mark = last_mark(whole(source))
    ends = source.resolve_end()
    with pytest.raises(DataLossError, match=f"offset {mark.offset} is another one"):
        source.follow(ends, schema=SCHEMA, ends=None, marks={next(iter(ends)): Mark(mark.offset, mark.crc ^ 1)})


def test_follow_with_the_marked_record_gone_goes_on(place: Place, opened: Any, filled: str) -> None:
    """Absent is legal: retention may take what was trained. So is a mark in a gap, as compaction leaves."""
    source = opened(filled, start="earliest", end="latest")
    ends = source.resolve_end()
    partition = next(iter(ends))
    drain(source, ends, ends, marks={partition: Mark(3, 1)})
    place.delete_before(filled, 5)
    drain(source, {partition: Position(5)}, ends, marks={partition: Mark(0, 1)})


@pytest.mark.parametrize("start", [Position(0), Position(0, 2), Position(1)])
def test_follow_from_a_deleted_record_is_a_data_loss(place: Place, opened: Any, filled: str, start: Position) -> None:
    source = opened(filled)
    place.delete_before(filled, 2)
    partition = Partition(filled, 0)
    with pytest.raises(DataLossError, match=f"{partition}: records from offset {start.offset} to 1 were deleted"):
        source.follow({partition: start}, schema=SCHEMA, ends=None)


def test_follow_overtaken_by_retention_is_a_data_loss(place: Place, opened: Any) -> None:
    topic = place.new_topic()
    source = opened(topic, start="earliest")
    with closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=None)) as feed:
        place.write(topic, [arrow_ys(1)] * 5)
        place.delete_before(topic, 4)
        blocks, said, deadline = list[Block](), "", time.monotonic() + 30
        while len(ys(blocks)) < 5 and not said and time.monotonic() < deadline:
            try:
                blocks += feed.poll(max_wait_s=0.2)
            except DataLossError as error:
                said = str(error)
        assert "offset 0 to 3 were deleted" in said or len(ys(blocks)) == 5  # or they had been fetched before


def test_follow_from_behind_the_end_is_a_data_loss(opened: Any, filled: str) -> None:
    partition = Partition(filled, 0)
    with pytest.raises(DataLossError, match=r"offset 1000, but the topic ends at \d+: it was cut short"):
        opened(filled).follow({partition: Position(1000)}, schema=SCHEMA, ends=None)


def test_follow_of_a_partition_that_is_not_there_is_a_data_loss(opened: Any, filled: str) -> None:
    with pytest.raises(DataLossError, match=f"{filled}:7"):
        opened(filled).follow({Partition(filled, 7): Position(0)}, schema=SCHEMA, ends=None)


def test_unknown_topic_is_not_found_and_not_made(place: Place, opened: Any) -> None:
    place.new_topic()
    source = opened("no-such-topic", start="earliest")
    for ask in (source.identify, source.resolve_start, source.resolve_end):
        with pytest.raises(NotFoundError, match="no-such-topic"):
            ask()
    with pytest.raises(NotFoundError, match="no-such-topic"):
        source.follow({Partition("no-such-topic", 0): Position(0)}, schema=SCHEMA, ends=None)
    assert "no-such-topic" not in place.topics()


@pytest.fixture
def timed(place: Place) -> str:
    """Two partitions: five records a second apart from T0 on, one record, and a deleted beginning in the first."""
    topic = place.new_topic(partitions=2)
    place.write(topic, [arrow_ys(i) for i in range(5)], timestamps_ms=[T0_MS + 1000 * i for i in range(5)])
    place.write(topic, [arrow_ys(9)], partition=1, timestamps_ms=[T0_MS + 1500])
    place.delete_before(topic, 1)
    return topic


T0 = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
T0_MS = int(T0.timestamp() * 1000)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("earliest", [1, 0]),
        ("latest", [5, 1]),
        (T0 - timedelta(days=1), [1, 0]),
        (T0 + timedelta(seconds=2), [2, 1]),
        (T0 + timedelta(seconds=1.5), [2, 0]),
        (T0 + timedelta(days=9), [5, 1]),
        ({0: 1, 1: 0}, [1, 0]),
        ({1: 1, 0: 5}, [5, 1]),
    ],
)
def test_resolve_start_gives_a_position_for_every_partition(opened: Any, timed: str, start: Any, expected: list[int]) -> None:
    found = opened(timed, start=start).resolve_start()
    assert found == {Partition(timed, number): Position(offset) for number, offset in enumerate(expected)}


@pytest.mark.parametrize(
    ("end", "expected"),
    [("latest", [5, 1]), (T0 + timedelta(seconds=2), [2, 1]), ({0: 3, 1: 100}, [3, 100]), ("never", None)],
)
def test_resolve_end_gives_a_position_for_every_partition(opened: Any, timed: str, end: Any, expected: Any) -> None:
    found = opened(timed, end=end).resolve_end()
    assert found == (expected and {Partition(timed, number): Position(offset) for number, offset in enumerate(expected)})


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({0: 0, 1: 0}, "`source.start`: offset 0 of partition 0 .* from 1 to 5"),
        ({0: 6, 1: 0}, "`source.start`: offset 6 of partition 0 .* from 1 to 5"),
        ({0: 1}, "`source.start`: partition 1 of .* is not named"),
        ({0: 1, 1: 0, 2: 0}, "`source.start`: partition 2 of .* is not read"),
    ],
)
def test_resolve_start_from_impossible_offsets_names_the_field(opened: Any, timed: str, start: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(timed, start=start).resolve_start()


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ({0: 1}, "`source.end`: partition 1 of .* is not named"),
        ({0: 1, 1: 0, 2: 0}, "`source.end`: partition 2 of .* is not read"),
        (datetime.now(UTC) + timedelta(hours=1), "`source.end`: .* is in the future"),
    ],
)
def test_resolve_end_that_is_impossible_names_the_field(opened: Any, timed: str, end: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(timed, end=end).resolve_end()


def test_send_rejects_writes_each_with_its_value_coordinate_and_reason(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    ranges = cut(whole(source), 2)
    target = f"{filled}-bad"
    assert source.send_rejects(ranges, to_topic=target, job_id="job-1") == 4
    letters = place.letters(target, source)
    rejects = [(f"{filled}:0:{r.offset}:{r.row}".encode(), r.reason.encode()) for item in ranges for r in item.rejects]
    found = [(key, {name: text for name, text in headers.items() if name != "dtrain-key"}) for key, _, headers in letters]
    expected = [
        (place_, {"dtrain-coordinate": place_, "dtrain-reason": reason, "dtrain-job": b"job-1"}) for place_, reason in rejects
    ]
    expected[2][1]["dtrain-value-in"] = rejects[1][0]
    assert found == expected
    assert [value for _, value, _ in letters] == [MESSAGES[1], MESSAGES[5], b"", MESSAGES[7]]


def test_send_rejects_takes_a_reason_with_half_a_character(place: Place, opened: Any, filled: str) -> None:
    """A message's own text may be in a reason, and any text may be in a message."""
    source = opened(filled, start="earliest", end="latest")
    reject = Reject(0, 0, "no number: \udcff")
    source.send_rejects(
        [RowRange(Partition(filled, 0), Position(0), Position(1), 0, (reject,))], to_topic=f"{filled}-bad", job_id="j"
    )
    assert place.letters(f"{filled}-bad", source)[0][2]["dtrain-reason"] == b"no number: ?"


def test_send_rejects_without_any_sends_nothing(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled)
    assert source.send_rejects([RowRange(Partition(filled, 0), Position(0), Position(1), 3)], to_topic="none", job_id="j") == 0
    assert "none" not in place.topics()


def test_send_rejects_of_a_deleted_record_sends_its_coordinate(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    ranges = cut(whole(source), 100)
    place.delete_before(filled, 2)
    assert source.send_rejects(ranges, to_topic=f"{filled}-bad", job_id="j") == 4
    assert place.letters(f"{filled}-bad", source)[0][:2] == (f"{filled}:0:1:0".encode(), None)


def test_commit_gives_the_positions_to_the_group(place: Place, opened: Any, filled: str) -> None:
    source, partition = opened(filled), Partition(filled, 0)
    for position in (Position(1), Position(3, 2)):
        source.commit({partition: position}, group=f"g-{filled}")
        assert place.committed(f"g-{filled}", source) == {partition: position.offset}


def test_several_topics_are_read_each_from_and_to_its_own_offsets(place: Place, opened: Any) -> None:
    topics = sorted(place.new_topic(partitions=2) for _ in range(2))
    for number, topic in enumerate(topics):
        for partition in range(2):
            first = 1000 * number + 100 * partition
            place.write(topic, [arrow_ys(first + i) for i in range(10)], partition=partition)
    source = opened(
        "",
        topics=topics,
        start={topic: {0: 2, 1: 3} for topic in topics},
        end={topics[0]: {0: 5, 1: 5}, topics[1]: {0: 9, 1: 5}},
    )
    assert set(source.identify().topic_ids) == set(topics)
    by_partition: dict[Partition, list[int]] = {}
    for block in whole(source):
        by_partition.setdefault(block.meta.partition, []).extend(ys([block]))
    assert by_partition == {
        Partition(topics[0], 0): [2, 3, 4],
        Partition(topics[0], 1): [103, 104],
        Partition(topics[1], 0): [*range(1002, 1009)],
        Partition(topics[1], 1): [1103, 1104],
    }


def test_topic_that_is_missing_among_several_is_named(place: Place, opened: Any) -> None:
    source = opened("", topics=[place.new_topic(), "no-such-topic"])
    with pytest.raises(NotFoundError, match="has no topic 'no-such-topic'"):
        source.identify()


def test_pattern_that_matches_nothing_is_named(place: Place, opened: Any) -> None:
    place.new_topic()
    with pytest.raises(NotFoundError, match=r"that matches 'nothing-.*'"):
        opened("", pattern="nothing-.*").resolve_start()


def test_pattern_leaves_out_the_topic_of_bad_records(place: Place, opened: Any) -> None:
    topic = place.new_topic()
    place.write(topic, [b"bad"])
    source = opened("", pattern=f"{topic}.*", start="earliest", end="latest", on_bad_record={"send_to": f"{topic}-bad"})
    source.send_rejects(cut(whole(source), 1), to_topic=f"{topic}-bad", job_id="j")
    assert f"{topic}-bad" in place.topics()
    assert set(source.identify().topic_ids) == {topic}


def test_chosen_partition_that_is_missing_is_named(place: Place, opened: Any) -> None:
    source = opened(place.new_topic(partitions=2), partitions=[0, 2])
    with pytest.raises(InputError, match=r"`source.partitions`: .* has no partition 2"):
        source.resolve_start()


def test_offsets_of_one_of_several_topics_are_not_enough(place: Place, opened: Any) -> None:
    topics = sorted(place.new_topic() for _ in range(2))
    with pytest.raises(InputError, match=r"`source.start`: 2 topics are read"):
        opened("", topics=topics, start={0: 0}).resolve_start()
    with pytest.raises(InputError, match=f"`source.start`: partition 0 of {topics[1]} is not named"):
        opened("", topics=topics, start={topics[0]: {0: 0}}).resolve_start()


def test_discover_finds_what_is_new_and_nothing_of_a_topic_made_anew(place: Place, opened: Any) -> None:
    topic = place.new_topic()
    source = opened(topic)
    before = source.identify()
    assert source.discover({Partition(topic, 0)}, identity=before).moves == ()
    place.add_partitions(topic, 2)
    found = source.discover({Partition(topic, 0)}, identity=before)
    assert [str(move) for move in found.moves] == [f"{topic}:{number} is read from offset 0 on" for number in (1, 2)]
    place.recreate(topic)
    assert source.discover((), identity=before).moves == ()


def test_gaps_are_the_moves_to_where_records_are_left(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled, start="earliest", end="latest")
    identity, ((partition, end),) = source.identify(), source.resolve_end().items()
    place.delete_before(filled, 5)
    known = {"ends": None, "identity": identity, "marks": {}}
    expected = {Position(0, 2): (5, "deleted"), Position(end.offset + 9): (end.offset, "truncated")}
    for position, (offset, reason) in expected.items():
        change = source.gaps({partition: position}, **known)
        assert change.moves == (Move(partition, position, Position(offset), reason),)
        assert list(change.topics) == []
        with closing(source.follow({partition: Position(offset)}, schema=SCHEMA, ends=None, identity=identity)):
            pass
    assert source.gaps({partition: Position(5)}, **known).moves == ()
    mark = {partition: Mark(6, 1)}
    assert [move.reason for move in source.gaps({partition: end}, ends=None, identity=identity, marks=mark).moves] == [
        "changed"
    ]


def test_gap_without_any_records_behind_it_is_a_data_loss(place: Place, opened: Any, filled: str) -> None:
    source = opened(filled)
    identity = source.identify()
    place.delete(filled)
    with pytest.raises(DataLossError, match="the topic was deleted"):
        source.gaps({Partition(filled, 0): Position(0)}, ends=None, identity=identity, marks={})
