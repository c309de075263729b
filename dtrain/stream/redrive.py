"""Redriving: bad records, repaired, back to the topic that they came from.

What was sent back is marked in the dead-letter topic by a letter with the same key and no value, so that it is not sent again and a
compacted topic forgets it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa

from dtrain.data.block import RawRecord
from dtrain.data.schema import Schema
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.positions import Partition
from dtrain.stream.log import VALUE_IN, Letter, LetterBox
from dtrain.stream.source import Source

_AT_A_TIME = 100
_DONE = "dtrain-redriven"


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record of the source's topic with rows that were bad.

    Args:
        partition: where it stands.
        offset: the same.
        rows: the bad rows; (0,) also where the record is bad as a whole.
        reasons: of each.
        key: the record's.
        value: the record's, whole, the good rows included; None where it has none, or was gone when the letter was written.
        is_whole: it is bad as a whole, or is but one row.
    """

    partition: Partition
    offset: int
    rows: tuple[int, ...]
    reasons: tuple[str, ...]
    key: bytes | None
    value: bytes | None
    is_whole: bool = True

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}:{','.join(map(str, self.rows))}"

    def table(self) -> pa.Table:
        """The bad rows of an Arrow message; all of its rows where it is bad as a whole."""
        found = pa.ipc.open_stream(pa.py_buffer(self.value or b"")).read_all()
        return found if self.is_whole else found.take(list(self.rows))


Repair = Callable[[BadRecord], "bytes | pa.Table | None"]
"""The user's: a message with the repaired rows alone, as bytes or as a table that is written as Arrow; None to leave them."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a bad record.

    Args:
        record: which.
        outcome: `sent`, or would be; `left`, as the user's code or a missing value wants it; `refused`: it is not sound.
        reason: why it was not sent.
    """

    record: BadRecord
    outcome: Literal["sent", "left", "refused"]
    reason: str = ""


@dataclass(slots=True)
class Redrive:
    """Sends repaired records back, each once as long as nobody kills it between a record and its mark: at least once.

    Args:
        box: the broker.
        source: of the job: decodes as the job does.
        schema: the job's.
        job_id: whose letters.
        dead_letters: the topic that they are in.
        repair: the user's.
        is_dry: send nothing.
        files: of the job's source, if it has any: what was read from files does not go back.
    """

    box: LetterBox
    source: Source
    schema: Schema
    job_id: str
    dead_letters: str
    repair: Repair
    is_dry: bool = False
    files: str = ""
    _values: dict[str, bytes] = field(default_factory=dict)

    def run(self) -> Iterator[Fate]:
        """Every record that was not sent back before, oldest letter first; what is `sent` is acknowledged when it comes."""
        waiting: list[Fate] = []
        for record in bad_records(self.box.letters(self.dead_letters), job_id=self.job_id):
            waiting.append(self._judged(record))
            if len(waiting) == _AT_A_TIME:
                yield from self._sent(waiting)
                waiting = []
        yield from self._sent(waiting)

    def _judged(self, record: BadRecord) -> Fate:
        if record.partition.topic == self.files:
            return Fate(record, "left", "it is of a file: correct that")
        if record.value is None:
            return Fate(record, "left", "it has no value")
        num_rows = sum(self._decoded(record, record.value).raw_rows)
        record = replace(record, is_whole=num_rows == 1)
        try:
            repaired = self.repair(record)
        except Exception as error:  # user code may raise anything
            return Fate(record, "refused", f"the repair raised {type(error).__name__}: {error}")
        if repaired is None:
            return Fate(record, "left", "the repair gave nothing for it")
        value = _written(repaired) if isinstance(repaired, pa.Table) else repaired
        if not isinstance(value, bytes):
            return Fate(record, "refused", f"the repair gave {type(value).__name__}, not bytes or a pyarrow.Table")
        if problem := self._problem(record, value, num_rows):
            return Fate(record, "refused", problem)
        self._values[str(record)] = value
        return Fate(record, "sent")

    def _problem(self, record: BadRecord, value: bytes, num_then: int) -> str:
        """Why the repaired message may not be sent; empty where it may."""
        now = self._decoded(record, value)
        if now.rejects:
            return f"still bad: {now.rejects[0].reason}"
        num_now, num_bad = sum(now.raw_rows), len(record.rows)
        if not record.is_whole and num_now > num_bad:  # else its good rows, which were trained, would be again
            return f"{num_now} rows in place of the {num_bad} bad ones of its {num_then}: send back the bad rows alone"
        return ""

    def _decoded(self, record: BadRecord, value: bytes) -> BlockMeta:
        raw = RawRecord(record.offset, record.key, value, 0)
        return self.source.decode(raw, partition=record.partition, schema=self.schema).meta

    def _sent(self, fates: Sequence[Fate]) -> Sequence[Fate]:
        """The same, the repaired ones acknowledged and marked."""
        records = [fate.record for fate in fates if fate.outcome == "sent"]
        if not self.is_dry:
            for topic in sorted({record.partition.topic for record in records}):
                mine = [record for record in records if record.partition.topic == topic]
                self.box.send([self._letter(record) for record in mine], to_topic=topic)
                self.box.send([mark for record in mine for mark in self._marks(record)], to_topic=self.dead_letters)
        self._values.clear()
        return fates

    def _letter(self, record: BadRecord) -> Letter:
        """The repaired record, to the partition of the bad one, so that equal keys stay together."""
        headers = [(_DONE, str(record).encode()), ("dtrain-job", self.job_id.encode())]
        return Letter(record.key, self._values[str(record)], headers, partition=record.partition.number)

    def _marks(self, record: BadRecord) -> Iterator[Letter]:
        for row in record.rows:
            key = f"{record.partition}:{record.offset}:{row}".encode()
            yield Letter(key, None, [(_DONE, b"1"), ("dtrain-job", self.job_id.encode())])


def bad_records(letters: Iterable[Letter], *, job_id: str) -> list[BadRecord]:
    """The job's records in `letters` that no mark speaks of, each once with all of its bad rows, in the order of first letters."""
    found: dict[str, _Said] = {}
    done: dict[str, set[int]] = {}
    for letter in letters:
        headers = dict(letter.headers)
        if letter.key is None or headers.get("dtrain-job") != job_id.encode():
            continue
        place, _, row = letter.key.decode().rpartition(":")
        if _DONE in headers:
            done.setdefault(place, set()).add(int(row))  # a letter may come again behind its mark: letters are at least once
        else:
            found.setdefault(place, _Said()).add(int(row), letter.value, headers)
    for place, rows in done.items():
        if place in found:
            found[place].forget(rows)
    return [said.record(place) for place, said in found.items() if said.reasons]


@dataclass(slots=True)
class _Said:
    """What the letters of one record say, however often and in whichever order they came: one of them has its value."""

    reasons: dict[int, str] = field(default_factory=dict)
    key: bytes | None = None
    value: bytes | None = None

    def add(self, row: int, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        """One more letter."""
        self.reasons.setdefault(row, headers.get("dtrain-reason", b"").decode())
        self.key = headers.get("dtrain-key", self.key)
        if self.value is None and VALUE_IN not in headers:
            self.value = value

    def forget(self, rows: Collection[int]) -> None:
        """These went back."""
        self.reasons = {row: reason for row, reason in self.reasons.items() if row not in rows}

    def record(self, place: str) -> BadRecord:
        """The record at `topic:partition:offset`."""
        partition, _, offset = place.rpartition(":")
        rows = sorted(self.reasons)
        reasons = tuple(self.reasons[row] for row in rows)
        return BadRecord(Partition.parse(partition), int(offset), tuple(rows), reasons, self.key, self.value)


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
