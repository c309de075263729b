"""The transforms of a job: what becomes of decoded rows before they are trained.

Decoded rows are filtered, then freed of duplicates, then some are held out, and what is left goes through the user's map. A row's
fate depends on its coordinate, on what its partition holds, on the job's spec, and on nothing else: not on where blocks end, and
not on where somebody began to read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dtrain.data.block import Block, RawRecord
from dtrain.data.deduplicate import RecentKeys
from dtrain.data.filter import Filter
from dtrain.data.held_out import is_held_out
from dtrain.data.map import Map
from dtrain.data.schema import Schema
from dtrain.data.staging import rows_of
from dtrain.errors import InputError
from dtrain.spec.expression import Expression, parse
from dtrain.spec.job import JobSpec
from dtrain.spec.transform import MESSAGE_KEY, DeduplicateSpec
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.fates import Fate
from dtrain.steplog.positions import Position

KEY_BUCKETS = 2**62
"""Texts are compared by a hash of so many values: two of a window are taken for the same once in a million million windows of 1,000."""

_LONG_KEY_BYTES = 16


class Transforms:
    """What a job does with decoded rows.

    Args:
        spec: the job; what it says is looked into when the first rows are wanted.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._wanted = spec.transform
        self._map: Map | None = None
        self._expression: Expression | None = parse(spec.transform.filter) if spec.transform.filter else None

    @property
    def window_rows(self) -> int:
        """How many raw rows before a place say what becomes of the rows behind it."""
        return self._wanted.deduplicate.window if isinstance(self._wanted.deduplicate, DeduplicateSpec) else 0

    def stream_schema(self, schema: Schema) -> Schema:
        """The columns to decode, where the task's are those of `schema`.

        Texts that are only compared become numbers here: places in a vocabulary of those in the filter, or hashes.

        Raises:
            InputError: a declared column cannot be what it says.
        """
        columns: dict[str, Any] = {} if self._wanted.map and self._wanted.columns else dict(schema.to_json())
        if twice := sorted(columns.keys() & self._wanted.columns.keys()):
            raise InputError(
                f"`transform.columns`: {twice[0]!r} is one of the task's columns already", fix="leave it out there"
            )
        columns |= self._wanted.columns
        for name, texts in (self._expression.texts if self._expression else {}).items():
            if texts and columns.get(name, "string") == "string":
                columns[name] = {"type": "string", "vocabulary": texts}
        if (by := self._key_column) and columns.get(by) == "string":
            columns[by] = {"type": "string", "buckets": KEY_BUCKETS}
        return Schema(columns)

    def begin(self, schema: Schema) -> Transform:
        """A transform for the rows of one partition, which remembers none of them yet.

        Raises:
            InputError: the filter or `deduplicate.by` do not fit the columns.
            TaskError: the map cannot be loaded.
        """
        stream = self.stream_schema(schema)
        if self._wanted.map and self._map is None:
            self._map = Map(self._wanted.map, code=self._spec.code, schema=schema)
        return Transform(
            spec=self._spec,
            stream=stream,
            schema=schema,
            filter=Filter(self._expression, stream) if self._expression else None,
            keys=_Keys(self._key_column, stream, self.window_rows) if self.window_rows else None,
            map=self._map,
        )

    @property
    def _key_column(self) -> str:
        """The column that de-duplication goes by; empty where it does not, or goes by the message's key."""
        wanted = self._wanted.deduplicate
        return wanted.by if isinstance(wanted, DeduplicateSpec) and wanted.by != MESSAGE_KEY else ""


def transforms_of(spec: JobSpec) -> Transforms | None:
    """The job's transforms; None where rows stay as they are decoded."""
    return None if spec.transform.is_empty and not spec.evaluate.held_out else Transforms(spec)


@dataclass(frozen=True, slots=True)
class Transform:
    """The transforms, for the blocks of one partition in their order."""

    spec: JobSpec
    stream: Schema
    schema: Schema
    filter: Filter | None
    keys: _Keys | None
    map: Map | None

    def __call__(self, block: Block, records: Sequence[RawRecord]) -> Block:
        """The block with the rows that are trained, behind them those that are held out, and the fates of all.

        Args:
            block: as decoded, with the stream's columns; begins where the last one ended.
            records: those of the block.

        Raises:
            TaskError: the map raised, or made something else than rows of the task.
        """
        meta, batch = block.meta, block.batch
        offsets, rows = _coordinates(meta)
        fates = np.zeros(len(offsets), np.uint8)
        fates[_places(meta)] = Fate.REJECTED
        decoded = np.flatnonzero(fates == Fate.TRAINED)  # raw row of each row of the batch
        if self.filter is not None:
            fates[decoded[~self.filter(batch)]] = Fate.FILTERED
        if self.keys is not None:
            left = np.flatnonzero(fates[decoded] == Fate.TRAINED)
            is_known = self.keys.duplicates(batch, left, decoded, offsets, records)
            fates[decoded[left[is_known]]] = Fate.DUPLICATE
            self.keys.recent.advance(len(fates))
        if share := self.spec.evaluate.held_out:
            left = np.flatnonzero(fates == Fate.TRAINED)
            seed = self.spec.train.seed
            fates[left[is_held_out(meta.partition, offsets[left], rows[left], seed=seed, share=share)]] = Fate.HELD_OUT
        made = self._made(_kept(batch, fates[decoded]), meta)
        has_left_out = bool((fates > Fate.REJECTED).any())
        return Block(replace(meta, fates=fates.tobytes() if has_left_out else b"", num_bytes=made.nbytes), made)

    def _made(self, batch: pa.RecordBatch, meta: BlockMeta) -> pa.RecordBatch:
        """The task's columns of `batch`."""
        if self.map is not None:
            return self.map(batch, where=f"{meta.partition} from {tuple(meta.start)} to {tuple(meta.end)}")
        return batch.select(self.schema.arrow.names)


def _kept(batch: pa.RecordBatch, fates: np.ndarray) -> pa.RecordBatch:
    """The rows that are trained, then those that are held out."""
    if not fates.any():
        return batch
    order = np.concatenate([np.flatnonzero(fates == Fate.TRAINED), np.flatnonzero(fates == Fate.HELD_OUT)])
    return batch.take(pa.array(order))


def _coordinates(meta: BlockMeta) -> tuple[np.ndarray, np.ndarray]:
    """Offset, and row within its record, of every raw row of the block."""
    firsts, stops = _bounds(meta)
    counts = stops - firsts
    offsets = np.repeat(np.array(meta.offsets, np.int64), counts)
    begins = np.repeat(firsts - (np.cumsum(counts) - counts), counts)
    return offsets, np.arange(len(offsets)) + begins


def _places(meta: BlockMeta) -> list[int]:
    """Where the bad rows stand among the raw rows of the block."""
    return [meta.raw_rows_before(Position(reject.offset, reject.row)) for reject in meta.rejects]


def _bounds(meta: BlockMeta) -> tuple[np.ndarray, np.ndarray]:
    """Which raw rows [first, stop) of each record are in the block."""
    stops = np.array(meta.raw_rows, np.int64)
    firsts = np.zeros_like(stops)
    for index in (0, -1) if len(stops) else ():
        firsts[index], stops[index] = meta.rows_of(index % len(stops))
    return firsts, stops


class _Keys:
    """The keys of rows, by a column or of their messages, and which of them came lately."""

    def __init__(self, column: str, stream: Schema, window_rows: int) -> None:
        self.recent = RecentKeys(window_rows)
        self._field = next((field for field in stream.fields if field.name == column), None)
        if column and self._field is None:
            raise _wrong(column, "is no column of the task", fix="declare it in `transform.columns`, as {NAME: int64}")
        if self._field is not None:
            _check_key(self._field)

    def duplicates(
        self, batch: pa.RecordBatch, rows: np.ndarray, raw: np.ndarray, offsets: np.ndarray, records: Sequence[RawRecord]
    ) -> np.ndarray:
        """Which of `rows` of `batch` are duplicates; `raw` is the raw row of each row of the batch."""
        places = raw[rows].tolist()
        if self._field is not None:
            keys = rows_of(batch.column(self._field.name), self._field)[rows].tolist()
            return np.array(self.recent.of_rows(keys, places), bool)
        key_of = {record.offset: _short(record.key) for record in records}
        messages = offsets[raw[rows]].tolist()
        return np.array(self.recent.of_messages([key_of[offset] for offset in messages], places, messages), bool)


def _check_key(field: Any) -> None:
    kind = str(field)
    if field.shape or not ("int" in kind or kind == "string" or kind.startswith("timestamp[")):
        raise _wrong(field.name, f"is {field}", fix="name a column of whole numbers or texts, one a row")
    if kind == "string" and field.column.buckets < KEY_BUCKETS:
        raise _wrong(field.name, "is one number for different texts", fix="name a column of its own, declared as string")
    if kind != "string" and field.column.buckets:
        fix = "declare it in `transform.columns` without buckets, or as string"
        raise _wrong(field.name, "is one number for different integers", fix=fix)
    if field.fill is not None:
        raise _wrong(field.name, "has a default, which would be one key for all rows without one", fix="leave the default out")


def _short(key: bytes | None) -> Hashable:
    """A key of bounded size: long ones by their digest."""
    return key if key is None or len(key) <= _LONG_KEY_BYTES else hashlib.blake2b(key, digest_size=_LONG_KEY_BYTES + 1).digest()


def _wrong(name: str, what: str, *, fix: str) -> InputError:
    return InputError(f"`transform.deduplicate.by`: {name!r} {what}", fix=fix)
