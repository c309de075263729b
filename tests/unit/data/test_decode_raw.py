"""Decoders of the user's: what they may make, and what becomes of what they raise."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.data.block import RawRecord
from dtrain.data.formats import reader_of
from dtrain.data.messages import ReadRows, Rows
from dtrain.errors import TaskError
from dtrain.spec.formats import RawFormat
from tests.support.formats import SCHEMA, raw, row
from tests.support.messages import records


def reader(name: str) -> ReadRows:
    return reader_of(RawFormat(type="raw", decoder=name))


def read(name: str, *values: bytes | None) -> Rows:
    return reader(f"tests.support.decoders:{name}")(records(values), SCHEMA)


def ys(rows: Rows) -> list[int]:
    return [y for batch in rows.batches for y in batch["y"].to_pylist()]


def test_one_batch_for_all_is_a_row_a_record() -> None:
    rows = read("decode_one_row_each", *(raw([row(i)]) for i in range(5)))
    assert (ys(rows), rows.raw_rows, len(rows.batches)) == (list(range(5)), [1] * 5, 1)


def test_a_batch_a_record_is_any_number_of_rows() -> None:
    rows = read("decode", raw([row(1), row(2)]), raw([row(3)]), raw([row(4)] * 3))
    assert (ys(rows), rows.raw_rows) == ([1, 2, 3, 4, 4, 4], [2, 1, 3])


def test_one_batch_of_another_number_of_rows_is_tried_by_the_record() -> None:
    rows = read("decode_one_row_each", raw([row(1)]), raw([row(2), row(3)]), raw([row(4)]))
    assert (ys(rows), rows.rejects) == ([1, 4], {(1, 0): "the decoder made a batch of 2 rows for 1 records"})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("decode_never", "the decoder raised ValueError: " + "x" * 169),
        ("decode_to_nothing", "the decoder raised TypeError: 'int' object is not iterable"),
        ("decode_to_a_dictionary", "the decoder raised AttributeError: 'dict' object has no attribute 'validate'"),
    ],
)
def test_a_decoder_that_makes_none_makes_every_record_bad(name: str, reason: str) -> None:
    rows = read(name, b"a", b"b")
    assert (rows.rejects, rows.raw_rows) == ({(0, 0): reason, (1, 0): reason}, [1, 1])


def test_batches_of_other_columns_are_taken_by_the_record() -> None:
    some = [RawRecord(i, b"k" if i % 2 else None, b"", i) for i in range(6)]
    rows = reader("tests.support.decoders:decode_by_key")(some, SCHEMA)
    assert (ys(rows), rows.rejects) == ([1] * 6, {})


@pytest.mark.parametrize("name", ["tests.support.decoders:none", "tests.support.nowhere:decode", "tests.support.decoders:ROW"])
def test_a_decoder_that_is_not_there_is_told_by_name(name: str) -> None:
    with pytest.raises(TaskError, match=name.partition(":")[2]):
        reader(name)


def test_a_decoder_whose_module_cannot_be_imported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_decoder.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TaskError, match="cannot load the decoder broken_decoder:decode: ZeroDivisionError"):
        reader("broken_decoder:decode")
