"""What files hold, as raw records: each has an offset of its own in the file, from which a reader can go on.

A record's offset, and what it holds, are functions of the file alone: not of where reading began, of which columns are read, or of
any library's version. Offsets rise, and are less than the file's size. Whoever has read the record at offset o goes on at o + 1.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dtrain.data.arrow_frames import dictionary_of
from dtrain.data.block import RawRecord
from dtrain.errors import CorruptError
from dtrain.spec.job import FileFormat

SLICE_ROWS = 8192
SLICE_BYTES = 4 << 20
"""How much of a row group or a record batch is one record, at most."""

CHUNK_BYTES = 256 << 10
"""How much text is read, and of CSV is one record, at most; unless one line is longer."""

MAX_LINE_BYTES = 16 << 20
"""The longest line that is read; a longer one is a bad record."""

TOO_LONG = b""
"""What stands for such a line: a row in no format of text. Without a value it would be passed over, as a tombstone is."""

_DIGEST_BYTES = 64 << 10
_NEWLINE, _QUOTE = ord("\n"), ord('"')
_BOM = b"\xef\xbb\xbf"

Found = tuple[list[RawRecord], int]
"""Some records, and the offset at which the next ones may be."""


class Records(ABC):
    """The records of one open file."""

    def __init__(self, source: pa.NativeFile, *, size: int) -> None:
        self._source = source
        self._size = size

    @abstractmethod
    def read(self, at: int) -> Iterator[Found]:
        """All records at or behind `at`, some at a time."""


def open_records(source: pa.NativeFile, *, size: int, file_format: FileFormat, columns: Sequence[str] | None = None) -> Records:
    """The records of an open file.

    Args:
        source: the file; for random access.
        size: in bytes.
        file_format: how it is written.
        columns: of a table, those to read; None for all.

    Raises:
        Exception: whatever pyarrow raises for a file that is none of its format.
    """
    match file_format:
        case "parquet":
            return ParquetRecords(source, size=size, columns=columns)
        case "csv":
            return CsvRecords(source, size=size)
        case "jsonl":
            return JsonlRecords(source, size=size)
    if source.read_at(6, 0) == b"ARROW1":
        return ArrowFileRecords(source, size=size, columns=columns)
    return ArrowStreamRecords(source, size=size, columns=columns)


class TableRecords(Records):
    """Records that are some rows of a table each, as Arrow IPC streams.

    Their CRC is of the file and of the offset, not of the bytes in memory: these are not the same with every version of Arrow.
    """

    def __init__(self, source: pa.NativeFile, *, size: int, columns: Sequence[str] | None) -> None:
        super().__init__(source, size=size)
        self._columns = columns
        head, tail = source.read_at(_DIGEST_BYTES, 0), source.read_at(_DIGEST_BYTES, max(0, size - _DIGEST_BYTES))
        self._crc = zlib.crc32(b"%d" % size, zlib.crc32(tail, zlib.crc32(head)))

    def read(self, at: int) -> Iterator[Found]:
        """See `Records.read`."""
        for offset, behind, batch in self._slices(at):
            record = RawRecord(offset, None, _message(batch, self._columns), 0, zlib.crc32(b"%d" % offset, self._crc))
            yield [record], behind

    @abstractmethod
    def _slices(self, at: int) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """By the record: its offset, where the next one may be, and its rows."""


class SpannedRecords(TableRecords):
    """Slices of some parts of a file, which share its size as offsets evenly among them."""

    _span: int

    def _behind(self, offset: int, *, is_last: bool) -> int:
        """Where the next record may be; behind the last one of its part, the next part."""
        return (offset // self._span + 1) * self._span if is_last else offset + 1


class ParquetRecords(SpannedRecords):
    """Slices of row groups."""

    def __init__(self, source: pa.NativeFile, *, size: int, columns: Sequence[str] | None) -> None:
        super().__init__(source, size=size, columns=columns)
        # Without reading ahead of need: a column's pages come one buffer at a time, however large the row group is.
        self._file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
        self._span = size // max(1, self._file.metadata.num_row_groups)

    def _slices(self, at: int) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        first, skipped = divmod(at, self._span)
        for group in range(first, self._file.metadata.num_row_groups):
            about = self._file.metadata.row_group(group)
            rows = _slice_rows(about.num_rows, num_offsets=self._span, num_bytes=about.total_byte_size)
            if skipped * rows < about.num_rows:
                batches = self._file.iter_batches(rows, row_groups=[group], columns=self._known())
                for number, batch in enumerate(_sliced(batches, rows)):
                    if number >= skipped:
                        offset = group * self._span + number
                        yield offset, self._behind(offset, is_last=(number + 1) * rows >= about.num_rows), batch
            skipped = 0

    def _known(self) -> list[str] | None:
        names = self._file.schema_arrow.names
        return None if self._columns is None else [name for name in names if name in self._columns]


class ArrowFileRecords(SpannedRecords):
    """Slices of record batches."""

    def __init__(self, source: pa.NativeFile, *, size: int, columns: Sequence[str] | None) -> None:
        super().__init__(source, size=size, columns=columns)
        self._file = pa.ipc.open_file(source)
        self._span = size // max(1, self._file.num_record_batches)

    def _slices(self, at: int) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        first, skipped = divmod(at, self._span)
        for index in range(first, self._file.num_record_batches):
            batch = self._file.get_batch(index)
            rows = _slice_rows(batch.num_rows, num_offsets=self._span, num_bytes=self._span)
            for number in range(skipped, -(-batch.num_rows // rows)):
                offset = index * self._span + number
                behind = self._behind(offset, is_last=(number + 1) * rows >= batch.num_rows)
                yield offset, behind, batch.slice(number * rows, rows)
            skipped = 0


class ArrowStreamRecords(TableRecords):
    """Slices of record batches: the offset is the place of the batch's message, which is a multiple of 8, and the slice's number.

    A stream says nowhere where its dictionaries are: one that has some is read over from its head, without being decoded.
    """

    _SLICES = 7

    def __init__(self, source: pa.NativeFile, *, size: int, columns: Sequence[str] | None) -> None:
        super().__init__(source, size=size, columns=columns)
        source.seek(0)
        self._head = pa.ipc.read_message(source)
        self._begin = source.tell()
        schema = pa.ipc.read_schema(self._head)
        self._has_dictionaries = any("dictionary<" in str(field.type) for field in schema)

    def _slices(self, at: int) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        wanted, skipped = at & ~7, at & 7
        place = self._begin if self._has_dictionaries else max(wanted, self._begin)
        self._source.seek(place)
        dictionaries: dict[int, list[bytes]] = {}
        while place < self._size and (message := self._next()) is not None:
            if message.type == "dictionary":
                _keep(dictionaries, message.serialize().to_pybytes())
            elif place >= wanted:
                prelude = [self._head.serialize(), *(part for parts in dictionaries.values() for part in parts)]
                batch = pa.ipc.open_stream(b"".join([*prelude, message.serialize()])).read_next_batch()
                rows = _slice_rows(batch.num_rows, num_offsets=self._SLICES, num_bytes=self._source.tell() - place)
                for number in range(skipped if place == wanted else 0, -(-batch.num_rows // rows)):
                    is_last = (number + 1) * rows >= batch.num_rows
                    behind = self._source.tell() if is_last else place + number + 1
                    yield place + number, behind, batch.slice(number * rows, rows)
            place = self._source.tell()

    def _next(self) -> pa.ipc.Message | None:
        try:
            return pa.ipc.read_message(self._source)
        except EOFError:
            if self._source.tell() != self._size:  # as of two streams in one file: nothing may be left out without a word
                raise ValueError("bytes behind the end of the Arrow IPC stream") from None
            return None


def _keep(dictionaries: dict[int, list[bytes]], message: bytes) -> None:
    """The dictionary of `message` is there from now on: behind what it goes on from, or in place of the last one of its id."""
    dictionary_id, is_delta = dictionary_of(message)
    if is_delta:
        dictionaries.setdefault(dictionary_id, []).append(message)
    else:
        dictionaries[dictionary_id] = [message]


class LineRecords(Records):
    """Text by lines."""

    _has_quotes = False

    def _chunks(self, at: int) -> Iterator[tuple[int, bytes | None]]:
        """Whole lines from `at` on, where one begins; None for a line that is too long. A chunk depends on where it begins alone."""
        while at < self._size:
            chunk = self._chunk(at)
            blank = 0 if chunk is None else len(chunk) - len(chunk.lstrip(b"\n"))
            if blank:  # nobody goes on in front of blank lines, so no chunk begins there
                at += blank
                continue
            yield at, chunk
            at = self._behind(at, chunk)

    def _chunk(self, at: int) -> bytes | None:
        num_bytes = CHUNK_BYTES
        while num_bytes <= MAX_LINE_BYTES:
            window = self._window(num_bytes, at)
            is_last = at + len(window) == self._size
            if is_last and not (self._has_quotes and window.count(b'"') % 2):
                return window
            if stop := _end_of_lines(window, has_quotes=self._has_quotes):
                return window[:stop]
            if is_last:
                return window
            num_bytes *= 2
        return None

    def _behind(self, at: int, chunk: bytes | None) -> int:
        """Where the next chunk begins."""
        return at + len(chunk) if chunk is not None else self._behind_line(at + MAX_LINE_BYTES)

    def _window(self, num_bytes: int, at: int) -> bytes:
        """That many bytes, or all that are left."""
        window: bytes = self._source.read_at(num_bytes, at)
        if len(window) < min(num_bytes, self._size - at):
            raise EOFError("the file is shorter than it was")
        return window

    def _behind_line(self, at: int) -> int:
        """Where the next line begins."""
        while at < self._size:
            window = self._window(CHUNK_BYTES, at)
            if stop := window.find(b"\n") + 1:
                return at + stop
            at += len(window)
        return self._size

    def _is_begin(self, at: int) -> bool:
        return bool(self._source.read_at(1, at - 1) == b"\n")


class JsonlRecords(LineRecords):
    """A record is a line that is not blank; its offset is the place of its first byte."""

    def read(self, at: int) -> Iterator[Found]:
        """See `Records.read`."""
        begin = len(_BOM) if self._source.read_at(3, 0) == _BOM else 0
        at = max(at, begin)
        if at > begin and not self._is_begin(at):
            at = self._behind_line(at)
        for place, chunk in self._chunks(at):
            records = [RawRecord(place, None, TOO_LONG, 0)] if chunk is None else list(_lines(chunk, place))
            yield records, self._behind(place, chunk)


class CsvRecords(LineRecords):
    """A record is some lines beneath the file's header, which is repeated in each; its offset is the place of the first line."""

    _has_quotes = True

    def __init__(self, source: pa.NativeFile, *, size: int) -> None:
        super().__init__(source, size=size)
        window: bytes = source.read_at(CHUNK_BYTES, 0)
        header, newline, _ = window.partition(b"\n")
        if not newline and len(window) < size:
            raise CorruptError(f"the first line is longer than {CHUNK_BYTES:,} bytes", fix="give the file a line of names")
        self._header = header.removeprefix(_BOM).rstrip(b"\r") + b"\n"
        self._begin = len(header) + len(newline)

    def read(self, at: int) -> Iterator[Found]:
        """See `Records.read`."""
        at = self._from(at)
        for place, chunk in self._chunks(at):
            if chunk is None or chunk.strip(b"\r\n"):
                record = RawRecord(place, None, TOO_LONG if chunk is None else self._header + chunk, 0)
                yield [record], self._behind(place, chunk)

    def _from(self, at: int) -> int:
        """Where the first chunk at or behind `at` begins: there, or it is the end of the one that begins right before."""
        if at <= self._begin or self._is_begin(at):
            return max(at, self._begin)
        return self._behind(at - 1, self._chunk(at - 1))


def _end_of_lines(window: bytes, *, has_quotes: bool) -> int:
    """Behind the last line of `window` that is whole; 0 without.

    One that ends in a quoted value is not whole. Where all do, nobody closes the first one's quote: it is cut off behind that line,
    so that it is a bad row by itself and takes no others with it.
    """
    stop = window.rfind(b"\n") + 1
    if not has_quotes or window.count(b'"', 0, stop) % 2 == 0:
        return stop
    text = np.frombuffer(window, np.uint8, count=stop)
    is_quoted = np.cumsum(text == _QUOTE) % 2 == 1
    stops = np.flatnonzero((text == _NEWLINE) & ~is_quoted)
    return int(stops[-1]) + 1 if len(stops) else window.find(b"\n") + 1


def _lines(chunk: bytes, place: int) -> Iterator[RawRecord]:
    for line in chunk.split(b"\n"):
        if line.strip():
            yield RawRecord(place, None, line, 0)
        place += len(line) + 1


def _slice_rows(num_rows: int, *, num_offsets: int, num_bytes: int) -> int:
    """Rows of a slice: few enough for the memory, and enough that every slice has an offset."""
    return max(1, -(-num_rows // num_offsets), min(SLICE_ROWS, SLICE_BYTES * num_rows // max(1, num_bytes)))


def _sliced(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows by `rows`, which pyarrow does by itself but for values of gigabytes."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        while sum(one.num_rows for one in waiting) >= rows:
            whole = pa.concat_batches(waiting) if len(waiting) > 1 else waiting[0]
            yield whole.slice(0, rows)
            waiting = [whole.slice(rows)] if whole.num_rows > rows else []
    if waiting:
        yield pa.concat_batches(waiting)


def _message(batch: pa.RecordBatch, columns: Sequence[str] | None) -> bytes:
    """The rows as an Arrow IPC stream, without dictionaries, which each would have to carry whole."""
    if columns is not None:
        batch = batch.select([index for index, name in enumerate(batch.schema.names) if name in columns])
    plain = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns]
    fields = [field.with_type(column.type) for field, column in zip(batch.schema, plain, strict=True)]
    batch = pa.RecordBatch.from_arrays(plain, schema=pa.schema(fields))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
