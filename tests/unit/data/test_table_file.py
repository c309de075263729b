"""Files of rows, whatever they are written as."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from dtrain.data.table_file import TableFile
from dtrain.errors import InputError, NotFoundError

TABLE = pa.table({"user": pa.array(range(5000), pa.int64()), "late": [i / 2 for i in range(5000)]})


def write_lines(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=700)


def write_file(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=700)


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "t.parquet": lambda table, path: pa.parquet.write_table(table, path, row_group_size=700),
    "t.csv": lambda table, path: pa.csv.write_csv(table, path),
    "t.jsonl": write_lines,
    "T.NDJSON": write_lines,
    "t.arrow": write_file,
    "stream.arrow": write_stream,
    "t.arrows": write_stream,
    "t.feather": lambda table, path: pa.feather.write_feather(table, str(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_file_gives_its_rows_in_order_and_says_how_far_it_is(name: str, tmp_path: Path) -> None:
    WRITERS[name](TABLE, tmp_path / name)
    file = TableFile(tmp_path / name)
    assert file.schema.names == ["user", "late"]
    assert pa.Table.from_batches(list(file)) == TABLE
    assert file.share() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", WRITERS)
def test_file_that_is_not_what_its_ending_says_is_refused_with_a_fix(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b'{"a":1}\n{"a":\x00\xff' if "csv" not in name else b"")
    with pytest.raises(InputError, match="cannot be read") as raised:
        list(TableFile(tmp_path / name))
    assert raised.value.fix
    assert "\n" not in raised.value.reason


@pytest.mark.parametrize("name", WRITERS)
def test_file_that_is_not_there_is_not_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=name):
        TableFile(tmp_path / name)


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.csv.gz"])
def test_ending_that_nobody_knows_is_refused_and_those_that_are_known_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        TableFile(tmp_path / name)
    assert ".parquet" in raised.value.fix


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.arrows"])
def test_file_cut_short_is_refused(name: str, tmp_path: Path) -> None:
    WRITERS[name](TABLE, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        list(TableFile(tmp_path / name))
