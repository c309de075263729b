"""Tables in files: Parquet, CSV, JSON lines and Arrow, as batches in the file's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from dtrain.errors import InputError, NotFoundError

_TEXT_BLOCK_BYTES = 16 << 20
"""How much of a text file its types are guessed from; also the longest line."""


class TableFile:
    """A file of rows, read from its beginning to its end, once.

    Args:
        path: .parquet, .csv, .jsonl, .ndjson, .json, .arrow, .feather or .arrows.

    Raises:
        NotFoundError: there is no such file.
        InputError: another ending, or not what its ending says.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        opener = _OPENERS.get(path.suffix.lower())
        if opener is None:
            known = ", ".join(sorted(_OPENERS))
            raise InputError(f"{path}: nobody knows what a {path.suffix or 'file without an ending'} holds", fix=f"use {known}")
        with self._mapped_errors():
            self.schema, self._batches, self.share = opener(path)

    schema: pa.Schema
    share: Callable[[], float]
    """How much of the file has been read, from 0 to 1."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The rows that are left, without those batches that are empty.

        Raises:
            InputError: the file is broken, or a text of it is not of the type that its column began with.
        """
        with self._mapped_errors():
            for batch in self._batches:
                if batch.num_rows:
                    yield batch

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no file {self._path}", fix="check the path") from error
        except OSError as error:  # pyarrow raises it for broken files too
            raise InputError(f"{self._path} cannot be read: {error}", fix="name a whole file that you may read") from error
        except pa.ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{self._path} cannot be read: {reason}", fix="repair that row, or the file's ending") from error


_Opened = tuple[pa.Schema, Iterator[pa.RecordBatch], Callable[[], float]]


def _open_parquet(path: Path) -> _Opened:
    file = pa.parquet.ParquetFile(path, pre_buffer=False)
    return file.schema_arrow, *_counted(file.iter_batches(), of=file.metadata.num_rows, size=lambda batch: batch.num_rows)


def _open_arrow(path: Path) -> _Opened:
    source = pa.memory_map(str(path))
    if source.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(source)
        num_batches = reader.num_record_batches
        return reader.schema, *_counted(map(reader.get_batch, range(num_batches)), of=num_batches, size=lambda _: 1)
    source.seek(0)
    stream = pa.ipc.open_stream(source)
    return stream.schema, stream, lambda: source.tell() / source.size()


def _open_csv(path: Path) -> _Opened:
    source = pa.OSFile(str(path))
    reader = pa.csv.open_csv(source, read_options=pa.csv.ReadOptions(block_size=_TEXT_BLOCK_BYTES))
    return reader.schema, reader, lambda: source.tell() / source.size()


def _open_jsonl(path: Path) -> _Opened:
    source = pa.OSFile(str(path))
    reader = pa.json.open_json(source, read_options=pa.json.ReadOptions(block_size=_TEXT_BLOCK_BYTES))
    return reader.schema, reader, lambda: source.tell() / source.size()


def _counted(
    batches: Iterator[pa.RecordBatch], *, of: int, size: Callable[[pa.RecordBatch], int]
) -> tuple[Iterator[pa.RecordBatch], Callable[[], float]]:
    """`batches`, whose sizes are `of` together, and how much of that has come."""
    done = 0

    def counting() -> Iterator[pa.RecordBatch]:
        nonlocal done
        for batch in batches:
            done += size(batch)
            yield batch

    return counting(), lambda: done / of if of else 1.0


_OPENERS: dict[str, Callable[[Path], _Opened]] = {
    ".parquet": _open_parquet,
    ".csv": _open_csv,
    ".jsonl": _open_jsonl,
    ".ndjson": _open_jsonl,
    ".json": _open_jsonl,
    ".arrow": _open_arrow,
    ".arrows": _open_arrow,
    ".feather": _open_arrow,
}
