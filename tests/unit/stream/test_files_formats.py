"""Records of files: exact places, from each of which a reader goes on, whatever wrote the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.block import RawRecord
from dtrain.data.decode import crc_of
from dtrain.spec.job import FileFormat
from dtrain.stream import files_formats
from dtrain.stream.files_formats import Records, open_records
from tests.support import files

TABLE = pa.table({"y": range(50), "word": pa.array(["a", "b"] * 25).dictionary_encode(), "x": [[i, 1.5] for i in range(50)]})
COLUMNS = ["y", "x"]


def opened(content: bytes, file_format: FileFormat, columns: list[str] | None = None) -> Records:
    return open_records(pa.BufferReader(content), size=len(content), file_format=file_format, columns=columns)


def read(records: Records, at: int) -> list[RawRecord]:
    found, last = [], at
    for some, behind in records.read(at):
        found += some
        last = max(last, *(record.offset + 1 for record in some)) if some else last
        assert last <= behind
        last = behind
    return found


def check_places(content: bytes, file_format: FileFormat, *, every: int = 1) -> list[RawRecord]:
    """All records; and from each of them, or from one of `every` so many, and from right behind it, exactly those that follow."""
    records = opened(content, file_format)
    found = read(records, 0)
    offsets = [record.offset for record in found]
    assert offsets == sorted(set(offsets))
    assert all(0 <= offset < len(content) for offset in offsets)
    for index, offset in [*enumerate(offsets)][::every]:
        assert read(opened(content, file_format), offset) == found[index:]
        assert read(records, offset + 1) == found[index + 1 :]
    for _, behind in list(records.read(0))[::every]:
        assert read(records, behind) == [record for record in found if record.offset >= behind]
    return found


def rows_of(record: RawRecord) -> list[dict[str, object]]:
    assert record.value is not None
    rows: list[dict[str, object]] = pa.ipc.open_stream(record.value).read_all().to_pylist()
    return rows


@pytest.mark.parametrize("rows", [1, 7, 20, 50])
@pytest.mark.parametrize("writer", [files.parquet, files.arrow_file, files.arrow_stream])
def test_table_read_from_every_record_gives_what_is_left(
    writer: Callable[..., bytes], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_formats, "SLICE_ROWS", 6)
    content = writer(TABLE, rows=rows)
    file_format: FileFormat = "parquet" if writer is files.parquet else "arrow"
    found = check_places(content, file_format)
    assert [row for record in found for row in rows_of(record)] == TABLE.to_pylist()
    assert max(len(rows_of(record)) for record in found) <= max(6, -(-rows // 7))


@pytest.mark.parametrize("writer", [files.parquet, files.arrow_file, files.arrow_stream])
def test_table_read_by_columns_has_the_same_places_and_crcs(writer: Callable[..., bytes]) -> None:
    content = writer(TABLE, rows=7)
    file_format: FileFormat = "parquet" if writer is files.parquet else "arrow"
    whole, some = (read(opened(content, file_format, columns), 0) for columns in (None, COLUMNS))
    assert [(r.offset, crc_of(r)) for r in whole] == [(r.offset, crc_of(r)) for r in some]
    assert [row for record in some for row in rows_of(record)] == TABLE.select(COLUMNS).to_pylist()


def test_parquet_of_many_equal_rows_in_few_bytes_has_a_place_for_every_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_formats, "SLICE_ROWS", 1)
    content = files.parquet(pa.table({"y": pa.array([7] * 1000, pa.int64())}), rows=1000)
    assert len(content) < 1000
    assert sum(len(rows_of(record)) for record in check_places(content, "parquet", every=37)) == 1000


def test_table_another_file_has_other_crcs() -> None:
    first, second = (files.parquet(pa.table({"y": [y]})) for y in (1, 2))
    assert len(first) == len(second)
    assert crc_of(read(opened(first, "parquet"), 0)[0]) != crc_of(read(opened(second, "parquet"), 0)[0])


@pytest.mark.parametrize("file_format", ["parquet", "arrow", "csv", "jsonl"])
def test_file_without_rows_has_no_records(file_format: FileFormat) -> None:
    writer = {"parquet": files.parquet, "arrow": files.arrow_stream, "csv": files.csv, "jsonl": files.jsonl}[file_format]
    assert read(opened(writer(TABLE.select(["y"]).slice(0, 0)), file_format), 0) == []


lines = st.lists(st.text(alphabet='ab1"\r {', max_size=12), max_size=30).map(lambda some: "\n".join(some).encode())


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """Of text; so that a few lines are many chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files_formats, "CHUNK_BYTES", 16)
        patch.setattr(files_formats, "MAX_LINE_BYTES", 64)
        yield


@given(lines)
def test_jsonl_read_from_every_record_gives_what_is_left(content: bytes) -> None:
    found = check_places(content, "jsonl")
    assert [record.value for record in found] == [line for line in content.split(b"\n") if line.strip()]


@given(lines)
def test_csv_read_from_every_record_gives_what_is_left(body: bytes) -> None:
    found = check_places(b"x,y\n" + body, "csv")
    assert all(record.value is not None and record.value.startswith(b"x,y\n") for record in found)
    text = b"".join((record.value or b"").removeprefix(b"x,y\n") for record in found)
    assert text.replace(b"\n", b"").replace(b"\r", b"") == body.replace(b"\n", b"").replace(b"\r", b"")


@given(st.lists(st.text(alphabet="ab,\n", max_size=9), min_size=1, max_size=9))
def test_csv_quoted_lines_stay_together(texts: list[str]) -> None:
    body = "".join(f'"{text}",1\n' for text in texts).encode()
    for record in check_places(b"x,y\n" + body, "csv"):
        assert record.value is not None
        assert record.value.count(b'"') % 2 == 0


@pytest.mark.parametrize("last", [b"", b"1,a\n" * 20])
def test_csv_quote_that_nobody_closes_takes_no_other_line_with_it(last: bytes) -> None:
    found = check_places(b"x,t\n" + b"0,a\n" * 20 + b'5,"oops\n' + b"1,a\n" * 20 + b'6,"oops\n' + last, "csv")
    values = [(record.value or b"").removeprefix(b"x,t\n") for record in found]
    assert [value for value in values if b'"' in value] == [b'5,"oops\n', b'6,"oops\n']


def test_arrow_stream_with_something_behind_its_end_is_refused() -> None:
    stream = files.arrow_stream(TABLE)
    with pytest.raises(ValueError, match="behind the end"):
        read(opened(stream + stream, "arrow"), 0)
    with pytest.raises(ValueError, match="behind the end"):
        read(opened(stream + bytes(8), "arrow"), len(stream) - 8)


def dictionary_stream(words: list[list[str]], *, deltas: bool) -> bytes:
    """A batch of each list, whose dictionary takes the place of the last one, or goes on from it."""
    batches = [
        pa.table({"a": pa.array(some).dictionary_encode(), "b": pa.array(some[:1] * len(some)).dictionary_encode()})
        for some in words
    ]
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_table(batch)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("deltas", [False, True])
def test_arrow_stream_of_changing_dictionaries_reads_each_batch_by_its_own(deltas: bool) -> None:
    words = [["a"], ["a", "b"], ["a", "b", "c"], *([] if deltas else [["d"], ["a"]])]
    found = check_places(dictionary_stream(words, deltas=deltas), "arrow")
    assert [[row["a"] for row in rows_of(record)] for record in found] == words


def test_arrow_stream_of_replaced_dictionaries_keeps_the_last_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    open_stream = pa.ipc.open_stream

    def measured(value: bytes) -> pa.ipc.RecordBatchStreamReader:
        sizes.append(len(value))
        return open_stream(value)

    monkeypatch.setattr(pa.ipc, "open_stream", measured)
    read(opened(dictionary_stream([[f"{number:03}"] for number in range(50)], deltas=False), "arrow"), 0)
    assert len(sizes) == 50
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_line_that_is_too_long_is_one_bad_record(file_format: FileFormat) -> None:
    found = check_places(b"x\n1\n" + b"2" * 1000 + b"\n3\n", file_format)
    assert [record.value for record in found].count(b"") == 1
    assert found[-1].value is not None
    assert found[-1].value.endswith(b"3\n" if file_format == "csv" else b"3")


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_byte_order_mark_is_no_part_of_the_first_line(file_format: FileFormat) -> None:
    (record, *_) = check_places(b"\xef\xbb\xbfx\n1\n", file_format)
    assert record.value in {b"x\n1\n", b"x"}
