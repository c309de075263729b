"""Messages that a function of the user's decodes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from dtrain.data.block import RawRecord
from dtrain.data.columns import ColumnError, indices_of
from dtrain.data.messages import BLOCK_BYTES, Rows, add_halving, most_rows, row_bytes, taken, too_many
from dtrain.data.schema import Schema
from dtrain.errors import TaskError
from dtrain.spec.formats import RawFormat

_MOST_TEXT = 200

Decoder = Callable[[list[RawRecord]], pa.RecordBatch | Sequence[pa.RecordBatch]]
"""From records to one batch with a row for each, in their order, or to one batch for each with any number of rows.

What it raises makes a record bad: of several, each is then tried by itself. So it must be a pure function of each record.
"""


class RawReader:
    """Reads by a decoder; see `ReadRows`.

    Args:
        spec: names the decoder.

    Raises:
        TaskError: there is no such function, or its module cannot be imported.
    """

    def __init__(self, spec: RawFormat) -> None:
        self._name = spec.decoder
        self._decode = _load(spec.decoder)

    def __call__(self, records: Sequence[RawRecord], schema: Schema) -> Rows:
        """The rows that the decoder makes of the records."""
        rows = Rows()
        width = row_bytes(schema)
        num_bytes = sum(map(len, [record.value or b"" for record in records])) + len(records) * width
        some = records if num_bytes <= BLOCK_BYTES else list(taken(records, lambda record: len(record.value or b"") + width))
        add_halving(rows, some, lambda alike: self._add(rows, alike, schema))
        return rows

    def _add(self, rows: Rows, records: Sequence[RawRecord], schema: Schema) -> None:
        batches = self._batches(list(records))
        counts = [batch.num_rows for batch in batches] if len(batches) == len(records) else [1] * len(records)
        if max(counts) > most_rows(schema):
            raise ColumnError(too_many(schema))
        found = batches[0].schema
        if any(not batch.schema.equals(found) for batch in batches):
            raise ColumnError("other columns")  # of several records only: each is then tried by itself
        table = pa.Table.from_batches(batches).select(indices_of(found, schema))
        rows.add(table, counts, schema)

    def _batches(self, records: list[RawRecord]) -> list[pa.RecordBatch]:
        """What the decoder makes of them: a batch of each, or one with a row of each.

        Raises:
            ColumnError: it raised, or made something else.
        """
        try:
            made: Any = self._decode(records)
            is_one = isinstance(made, pa.RecordBatch)
            batches = [made] if is_one else list(made)
            for batch in batches:
                batch.validate(full=True)
        except Exception as error:  # it is the user's code
            raise ColumnError(f"the decoder raised {type(error).__name__}: {error}"[:_MOST_TEXT]) from error
        if is_one and made.num_rows != len(records):
            raise ColumnError(f"the decoder made a batch of {made.num_rows} rows for {len(records)} records")
        if not is_one and len(batches) != len(records):
            raise ColumnError(f"the decoder made {len(batches)} batches for {len(records)} records")
        return batches


def _load(name: str) -> Decoder:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # user code may raise anything while it is imported
        words = f"cannot load the decoder {name}: {type(error).__name__}: {error}"
        raise TaskError(words, fix="correct `source.format.decoder` or `code`, or the module itself") from error
    if not callable(found):
        raise TaskError(f"{name} is not a function", fix="name one that takes a list of records")
    return found  # type: ignore[no-any-return]
