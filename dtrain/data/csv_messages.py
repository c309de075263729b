"""Messages whose value is CSV: a line of names, and any number of rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dtrain.data.block import RawRecord
from dtrain.data.columns import ColumnError, clean
from dtrain.data.csv_texts import fits_column
from dtrain.data.messages import MESSAGE_BYTES, Rows
from dtrain.data.schema import Field, Schema

csv.field_size_limit(MESSAGE_BYTES)  # a longer one than its 128 KiB is no error: Arrow reads it, and it may be of no column


def read_csv(records: Sequence[RawRecord], schema: Schema) -> Rows:
    """The rows of the records' values; see `ReadRows`. An empty value, and NA, NaN or null, are nulls."""
    rows = Rows()
    for value in (record.value for record in records):
        if value is None:
            rows.add_bad("no value")
            continue
        try:
            _add(rows, value, schema)
        except ColumnError as error:
            rows.add_bad(str(error))
        except (pa.ArrowException, UnicodeDecodeError, csv.Error):
            rows.add_bad("not CSV")
    return rows


def csv_row(value: bytes, row: int) -> bytes:
    """One row of a value beneath the line of names; the whole value, if that has no such row."""
    try:
        rows = [cells for cells in csv.reader(io.StringIO(value.decode("latin-1"), newline="")) if cells]
    except csv.Error:
        return value
    if row + 1 >= len(rows):
        return value
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([rows[0], rows[row + 1]])
    return text.getvalue().encode("latin-1")


def _fields(names: Sequence[str], schema: Schema) -> list[Field]:
    """The schema's columns that are among `names`. Raises `ColumnError`."""
    for field in schema.fields:
        if names.count(field.name) > 1 or (field.name not in names and field.fill is None):
            raise ColumnError(f"column {field.name!r} is {'there twice' if field.name in names else 'missing'}")
        if field.shape and field.name in names:
            raise ColumnError(f"column {field.name!r}: CSV has numbers, not {field}")
    return [field for field in schema.fields if field.name in names]


def _add(rows: Rows, value: bytes, schema: Schema) -> None:
    """Add the message. Raises `ColumnError`, `ArrowException`, `csv.Error`: it is bad as a whole, and nothing was added."""
    names = next(csv.reader([value.partition(b"\n")[0].rstrip(b"\r").decode()]), [])
    fields = _fields(names, schema)
    try:
        table, misfits = _parse(value, {field.name: field.text_type for field in fields}, num_names=len(names))
        bad: dict[int, str] = {}
        is_sure = not any(pc.any(pc.is_inf(c)).as_py() for c in table.columns if pa.types.is_floating(c.type))
    except pa.ArrowInvalid:
        is_sure = False
    if not is_sure:
        texts, misfits = _parse(value, {field.name: pa.binary() for field in fields}, num_names=len(names))
        table, bad = _converted(texts, fields)
    num_rows = table.num_rows + len(misfits) + len(bad)
    places = np.setdiff1d(np.arange(num_rows), list(misfits))  # of the rows with as many values as names
    reasons = dict.fromkeys(misfits, "not as many values as names") | {int(places[row]): why for row, why in bad.items()}
    places = np.setdiff1d(places, places[list(bad)])
    batch, unclean = clean(table, schema)
    reasons |= {int(places[row]): why for row, why in unclean.items()}
    message = len(rows.raw_rows)
    rows.rejects.update({(message, row): reasons[row] for row in sorted(reasons)})
    rows.raw_rows.append(num_rows)
    rows.batches.append(batch)


def _parse(value: bytes, types: dict[str, pa.DataType], *, num_names: int) -> tuple[pa.Table, dict[int, str]]:
    """The columns of `types` in their order, and the rows that have not as many values as there are names, as text.

    Raises:
        ArrowInvalid: a value is not of its type, or a quote stays open: whatever stands behind it would be taken for one value.
    """
    end = b"," * num_names  # one value too many: Arrow tells of this line unless it takes it for a part of a value
    misfits: dict[int, str] = {}

    def note(row: pyarrow.csv.InvalidRow) -> str:
        misfits[row.number - 2] = row.text or ""
        return "skip"

    text = b"\n".join((value, end, b""))
    table = pyarrow.csv.read_csv(
        pa.BufferReader(text),
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=len(text) + 1),
        parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=note),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=True),
    )
    if misfits.pop(table.num_rows + len(misfits) - 1, None) != end.decode():
        raise pa.ArrowInvalid("a quote stays open")
    return table, misfits


def _converted(texts: pa.Table, fields: Sequence[Field]) -> tuple[pa.Table, dict[int, str]]:
    """The rows of which every text is of its column's type, and why the others are not."""
    bad: dict[int, str] = {}
    for field in fields:
        values = texts[field.name].to_pylist()
        fits = [fits_column(value, field) for value in values]
        doubtful = [row for row, is_fit in enumerate(fits) if is_fit is None]
        unfit = [row for row, is_fit in enumerate(fits) if is_fit is False]
        unfit += [doubtful[index] for index in _unfit([values[row] for row in doubtful], range(len(doubtful)), field)]
        bad = dict.fromkeys(unfit, f"column {field.name!r}: not {field}") | bad
    kept = texts.filter(pa.array(np.isin(np.arange(texts.num_rows), list(bad), invert=True)))
    columns = [_column(kept[field.name].to_pylist(), field) for field in fields]
    return pa.table(columns, names=texts.column_names), bad


def _unfit(values: Sequence[bytes], rows: range, field: Field) -> list[int]:
    """Which of `rows` are not of the field's type, found by halves."""
    try:
        _column(values[rows.start : rows.stop], field)
    except pa.ArrowInvalid:
        if len(rows) == 1:
            return [rows.start]
        middle = len(rows) // 2
        return _unfit(values, rows[:middle], field) + _unfit(values, rows[middle:], field)
    return []


def _column(values: Sequence[bytes | None], field: Field) -> pa.ChunkedArray:
    """Texts as the CSV reader takes them: it trims numbers and knows its own nulls."""
    lines = [b"x", *(b'"' + (value or b"").replace(b'"', b'""') + b'"' for value in values), b""]
    return _parse(b"\n".join(lines), {"x": field.text_type}, num_names=1)[0]["x"]
