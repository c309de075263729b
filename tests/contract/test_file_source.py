"""The contract of `Source` over files, of every format, on a disk and in an object store; and over files and then a topic."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from dtrain.clock import SystemClock
from dtrain.data.block import Block
from dtrain.data.transforms import transforms_of
from dtrain.errors import CorruptError, DataLossError, NotFoundError
from dtrain.spec.job import FilesSpec, JobSpec, SourceSpec
from dtrain.steplog.positions import Mark, Position, Positions
from dtrain.steplog.ranges import RowRange, advance
from dtrain.stream import files_formats, lookback
from dtrain.stream.files import FileLog
from dtrain.stream.files_places import open_place
from dtrain.stream.files_source import NEVER, FileSource
from dtrain.stream.memory import MemoryLog, MemorySource, MemoryTopic
from tests.contract.test_source import SCHEMA, all_places, arrow_ys, cut, drain, poll_for, ys
from tests.support.files import WRITERS, Folder, local_folder, object_folder
from tests.support.object_store import ObjectStore, object_store

FILES = [[0, 1, None, 2, 3, None], [], [4], [None], [5, 6, 7]]
"""By file, what its rows hold; null is bad."""


@pytest.fixture(scope="module", autouse=True)
def small_records() -> Iterator[None]:
    """A few rows are several records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files_formats, "CHUNK_BYTES", 16)
        patch.setattr(files_formats, "SLICE_ROWS", 3)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as store:
        yield store


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return local_folder(tmp_path)
    return object_folder(request.getfixturevalue("server"), uuid4().hex)


@pytest.fixture(params=WRITERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def content(kind: str, rows: list[Any]) -> bytes:
    return WRITERS[kind][1](pa.table({"more": [f"r{row}" for row in rows], "y": pa.array(rows, pa.int64())}), rows=4)


@pytest.fixture
def pattern(folder: Folder, kind: str) -> str:
    """Of FILES, with others beside them."""
    for number, rows in enumerate(FILES):
        folder.put(f"part-{number}.{WRITERS[kind][0]}", content(kind, rows))
    folder.put(f"other-0.{WRITERS[kind][0]}", b"not meant")
    folder.put("part-0.txt", b"not meant")
    return f"{folder.url}/part-*.{WRITERS[kind][0]}"


def opened(files: str, *, letters: MemoryLog | None = None, **fields: Any) -> FileSource:
    history = FilesSpec.model_validate({"files": files} | fields)
    log = FileLog(history, open_place(files), letters=letters, clock=SystemClock())
    return FileSource(SourceSpec(files=files), history, log, live=None, clock=SystemClock())


def bounds(source: FileSource) -> tuple[Positions, Positions]:
    ends = source.resolve_end()
    assert ends is not None
    return source.resolve_start(), ends


def whole(source: FileSource, **options: Any) -> list[Block]:
    return drain(source, *bounds(source), **options)


def places(blocks: list[Block], url: str) -> list[Position]:
    """Where reading may begin and end: everywhere; in an object store, where each beginning is a dozen requests, at every third place."""
    every = all_places(blocks)
    return [*every[::3], every[-1]] if url.startswith("s3:") else every


def test_follow_gives_every_row_once_in_the_order_of_the_names(pattern: str) -> None:
    blocks = whole(opened(pattern))
    assert ys(blocks) == list(range(8))
    assert sum(len(block.meta.rejects) for block in blocks) == 3
    reasons = [reject.reason for block in blocks for reject in block.meta.rejects]
    files = [pattern.replace("*", number) for number in ("0", "0", "3")]
    assert [reason.partition(" from byte")[0] for reason in reasons] == [f"column 'y' is null, in {file}" for file in files]


def test_follow_from_every_place_gives_exactly_what_is_left(pattern: str) -> None:
    source = opened(pattern)
    starts, ends = bounds(source)
    blocks = whole(source)
    for start in places(blocks, pattern):
        done = sum(block.meta.rows_before(start) for block in blocks)
        assert ys(drain(source, dict.fromkeys(starts, start), ends)) == list(range(done, 8))


def test_follow_to_every_place_stops_right_there(pattern: str) -> None:
    source = opened(pattern)
    starts, blocks = source.resolve_start(), whole(source)
    for end in places(blocks, pattern):
        count = sum(block.meta.rows_before(end) for block in blocks)
        found = drain(source, starts, dict.fromkeys(starts, end))
        assert ys(found) == list(range(count))
        assert all((r.offset, r.row) < end for block in found for r in block.meta.rejects)


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_fetch_gives_the_rows_that_were_followed(pattern: str, rows: int) -> None:
    source = opened(pattern)
    starts, ends = bounds(source)
    blocks = whole(source)
    ranges = cut(blocks, rows)
    assert advance(starts, ranges) == ends
    for order in (ranges, ranges[::-1], ranges[1::2]):
        batches = opened(pattern).fetch(order, schema=SCHEMA)
        assert [batch.num_rows for batch in batches] == [item.num_rows for item in order]
    assert [y for batch in source.fetch(ranges, schema=SCHEMA) for y in batch["y"].to_pylist()] == ys(blocks)


def test_fetch_of_rows_that_are_others_now_is_a_data_loss(pattern: str) -> None:
    source = opened(pattern)
    item: RowRange = next(item for item in cut(whole(source), 1) if item.num_rows)
    for change in ({"last_crc": item.last_crc ^ 1}, {"num_rows": 2}):
        with pytest.raises(DataLossError, match="part-"):
            source.fetch([dataclasses.replace(item, **change)], schema=SCHEMA)


def test_files_that_come_later_are_not_of_the_job(pattern: str, folder: Folder, kind: str) -> None:
    identity = opened(pattern).identify()
    folder.put(f"part-00.{WRITERS[kind][0]}", content(kind, [99]))
    source = opened(pattern)
    source.recall(type(identity).from_json(identity.to_json()))
    assert source.identify() == identity
    assert ys(whole(source, identity=identity)) == list(range(8))


def test_file_that_was_changed_blocks_and_is_named(pattern: str, folder: Folder, kind: str) -> None:
    source = opened(pattern)
    identity, (starts, ends) = source.identify(), bounds(source)
    ranges = [item for item in cut(whole(source), 1) if item.num_rows]
    name = f"part-4.{WRITERS[kind][0]}"
    folder.put(name, content(kind, [8, 6, 7]))
    with pytest.raises(DataLossError, match=f"{name} was changed since the job began"):
        opened(pattern).follow(starts, schema=SCHEMA, ends=ends, identity=identity)
    with pytest.raises(DataLossError, match=f"{name} was changed"):
        source.fetch(ranges[-1:], schema=SCHEMA)


def test_file_that_changes_while_it_is_awaited_blocks_and_is_named(pattern: str, folder: Folder, kind: str) -> None:
    source = opened(pattern)
    with closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=source.resolve_end())) as feed:
        feed.poll(max_wait_s=0)
        folder.put(f"part-4.{WRITERS[kind][0]}", content(kind, [8, 6, 7]))
        with pytest.raises(DataLossError, match=r"part-4.* was changed"):
            poll_for(feed, max_wait_s=10)


def test_file_that_is_written_over_in_its_place_is_not_read_half_old_half_new(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"y": 1}\n' * 100)
    os.utime(path, (1e9, 1e9))
    source = opened(str(path))
    with closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=source.resolve_end())) as feed:
        feed.poll(max_wait_s=0)
        with path.open("r+b") as file:
            file.write(b'{"y": 2}\n' * 100)
        with pytest.raises(DataLossError, match=r"a\.jsonl was changed"):
            feed.poll(max_wait_s=0)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_line_that_is_too_long_is_a_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(files_formats, "MAX_LINE_BYTES", 64)
    before, long, behind = (WRITERS[suffix][1](pa.table({"y": [y], "t": ["a" * num]})) for y, num in ((1, 1), (2, 500), (3, 1)))
    if suffix == "csv":
        long, behind = long.partition(b"\n")[2], behind.partition(b"\n")[2]
    (tmp_path / f"a.{suffix}").write_bytes(before + long + behind)
    source = opened(
        str(tmp_path / f"a.{suffix}"), letters=(letters := MemoryLog(SourceSpec(topic="n", bootstrap="memory:1"), {}))
    )
    blocks = whole(source)
    assert ys(blocks) == [1, 3]
    (reject,) = (reject for block in blocks for reject in block.meta.rejects)
    assert reject.offset == len(before)
    assert reject.reason.startswith("a line of more than 16 MiB, in ")
    assert source.send_rejects(cut(blocks, 2), to_topic="bad", job_id="j") == 1
    assert [letter.value for letter in letters.sent["bad"]] == [b""]


def test_quote_that_nobody_closes_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'y,t\n1,a\n2,"oops\n' + b"3,a\n" * 20)
    blocks = whole(opened(str(tmp_path / "a.csv")))
    assert ys(blocks) == [1] + [3] * 20
    assert [reject.offset for block in blocks for reject in block.meta.rejects] == [8]


def test_streams_in_one_file_block_and_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.arrows").write_bytes(content("arrow stream", [1, 2]) * 2)
    with pytest.raises(CorruptError, match=r"a\.arrows cannot be read as arrow: bytes behind the end"):
        whole(opened(str(tmp_path / "a.arrows")))


def test_file_that_is_gone_blocks_unless_it_is_trained(pattern: str, folder: Folder, kind: str) -> None:
    source = opened(pattern)
    identity, (starts, ends) = source.identify(), bounds(source)
    blocks = whole(source)
    last = next(block.meta for block in blocks if block.meta.offsets)
    folder.remove(f"part-0.{WRITERS[kind][0]}")
    with pytest.raises(DataLossError, match=r"part-0.* is gone"):
        opened(pattern).follow(starts, schema=SCHEMA, ends=ends, identity=identity)
    behind = {partition: Position(source._files.lanes[partition].place(0).file.size) for partition in starts}
    marks = {partition: Mark(last.offsets[0], last.crcs[0]) for partition in starts}
    assert ys(drain(opened(pattern), behind, ends, identity=identity, marks=marks)) == [4, 5, 6, 7]


def test_follow_with_another_record_at_the_mark_is_a_data_loss(pattern: str) -> None:
    source = opened(pattern)
    starts, ends = bounds(source)
    first = next(block.meta for block in whole(source) if block.meta.offsets)
    marks = {partition: Mark(first.offsets[0], first.crcs[0]) for partition in starts}
    middle = dict.fromkeys(starts, Position(first.offsets[0], 1))
    drain(source, middle, ends, marks=marks)
    wrong = {partition: Mark(mark.offset, mark.crc ^ 1) for partition, mark in marks.items()}
    with pytest.raises(DataLossError, match="is another one"):
        source.follow(middle, schema=SCHEMA, ends=ends, marks=wrong)


def test_several_at_a_time_keep_the_order_within_each_partition(pattern: str) -> None:
    blocks = whole(opened(pattern, at_a_time=2))
    first, second = ([b for b in blocks if b.meta.partition.number == number] for number in (0, 1))
    assert (ys(first), ys(second)) == ([0, 1, 2, 3, 4, 5, 6, 7], [])


def test_bad_rows_are_sent_alone_with_all_their_columns(pattern: str, kind: str) -> None:
    letters = MemoryLog(SourceSpec(topic="none", bootstrap="memory:1"), {})
    source = opened(pattern, letters=letters)
    assert source.send_rejects(cut(whole(source), 2), to_topic="bad", job_id="j") == 3
    values = [letter.value or b"" for letter in letters.sent["bad"]]
    if kind == "csv":
        assert values == [b"more,y\nrNone,\n"] * 3
    elif kind == "jsonl":
        assert values == [b'{"more": "rNone", "y": null}'] * 3
    else:
        assert [pa.ipc.open_stream(value).read_all().to_pylist() for value in values] == [[{"more": "rNone", "y": None}]] * 3


@pytest.mark.parametrize("first_bytes", [64, lookback.FIRST_BYTES])
def test_duplicates_are_the_same_ones_wherever_reading_begins(
    folder: Folder, kind: str, first_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookback, "FIRST_BYTES", first_bytes)
    rows = [[0, 1, 0, 2, 1, 3, 3, 4, 0, 2, 5, 6, 2], [6, 5, 0, None, 5, 9, 5, 5, 0, 1], [1, 9, 0, 2]]
    for number, some in enumerate(rows):
        folder.put(f"part-{number}.{WRITERS[kind][0]}", content(kind, some))
    files = f"{folder.url}/*.{WRITERS[kind][0]}"
    job = {"name": "t", "task": "a:B", "source": {"files": files}, "checkpoint": {"to": "/nowhere"}}
    spec = JobSpec.model_validate(job | {"transform": {"deduplicate": {"by": "y", "window": 4}}})

    def source() -> FileSource:
        source = opened(files)
        source.transform_rows(transforms_of(spec))
        return source

    starts, ends = bounds(source())
    blocks = whole(source())
    assert 10 < len(ys(blocks)) < sum(map(len, rows)) - 4
    for start in places(blocks, files):
        done = sum(block.meta.rows_before(start) for block in blocks)
        assert ys(drain(source(), dict.fromkeys(starts, start), ends)) == ys(blocks)[done:]
    ranges = [item for item in cut(blocks, 2) if item.num_rows]
    found = [batch["y"].to_pylist() for batch in source().fetch(ranges[1::2], schema=SCHEMA)]
    whole_found = [batch["y"].to_pylist() for batch in source().fetch(ranges, schema=SCHEMA)]
    assert found == whole_found[1::2]
    assert [y for some in whole_found for y in some] == ys(blocks)


def test_pattern_without_files_is_not_found(folder: Folder) -> None:
    with pytest.raises(NotFoundError, match=r"no file is .*/absent-\*\.csv"):
        opened(f"{folder.url}/absent-*.csv").identify()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_file_of_another_format_blocks_and_is_named(folder: Folder, suffix: str) -> None:
    folder.put(f"a.{suffix}", b"y\n1\n" * 40)
    with pytest.raises(CorruptError, match=rf"a\.{suffix} cannot be read as {suffix}"):
        whole(opened(f"{folder.url}/*.{suffix}"))


def test_file_that_is_broken_in_its_middle_blocks_and_is_named(folder: Folder) -> None:
    sound = content("parquet", list(range(1000)))
    folder.put("a.parquet", sound[:2000] + bytes(500) + sound[2500:])
    with pytest.raises(CorruptError, match=r"a\.parquet cannot be read as parquet"):
        whole(opened(f"{folder.url}/a.parquet"))


def test_files_and_then_a_topic_stand_side_by_side(pattern: str) -> None:
    topics = {"live": MemoryTopic("live", partitions=2)}
    for y in range(100, 104):
        topics["live"].append(arrow_ys(y), partition=y % 2, timestamp_ms=y)
    spec = SourceSpec.model_validate(
        {"topic": "live", "bootstrap": "memory:1", "start": {0: 1, 1: 0}, "history": {"files": pattern}}
    )
    assert spec.backfill is not None
    log = FileLog(spec.backfill, open_place(pattern), letters=None, clock=SystemClock())
    source = FileSource(spec, spec.backfill, log, live=MemorySource(spec, topics), clock=SystemClock())
    starts, ends = bounds(source)
    assert sorted((str(p), at) for p, at in starts.items()) == sorted(
        [(f"{pattern}:0", Position(0)), ("live:0", Position(1)), ("live:1", Position(0))]
    )
    live = [partition for partition in starts if partition.topic == "live"]
    assert [ends[partition] for partition in live] == [NEVER, NEVER]
    ends = dict(ends) | dict.fromkeys(live, Position(2))
    with closing(source.follow(starts, schema=SCHEMA, ends=ends, identity=source.identify())) as feed:
        feed.hold(live)
        found: list[Block] = []
        while len(ys(found)) < 8:
            found += feed.poll(max_wait_s=0.1)
        assert ys([*found, *feed.poll(max_wait_s=0.05)]) == list(range(8))
        feed.hold(())
        while len(ys(found)) < 11:
            found += feed.poll(max_wait_s=0.1)
        assert sorted(ys(found)[8:]) == [101, 102, 103]
        assert {p.topic: end for p, end in feed.end_offsets().items()} == {"live": 2, pattern: ends[next(iter(ends))].offset}
    ranges = cut(found, 1)
    assert [y for batch in source.fetch(ranges, schema=SCHEMA) for y in batch["y"].to_pylist()] == ys(found)
