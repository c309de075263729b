"""Replay: from one checkpoint to a later one by topic and step log, in one plain process that knows nothing of Ray or gRPC."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from typing import Any

import pyarrow as pa
import torch

from dtrain.checkpoint.locks import read_lock
from dtrain.checkpoint.manifest import Blob, Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.code.digest import is_digest_of
from dtrain.data.schema import Schema, check_same
from dtrain.errors import CorruptError, DriftError, InputError
from dtrain.packages.cache import use
from dtrain.rank import Rank
from dtrain.replay.audit import Audit, audit
from dtrain.snapshot import encode_state, read_state
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.ranges import RowRange
from dtrain.stream.log import Identity
from dtrain.stream.source import Source
from dtrain.train.gradient import SpanBatch
from dtrain.train.state import State

FAST_TOLERANCE = 1e-5
FAST_WINDOW = 100
"""Steps within which `fast` promises that tolerance; rounding grows."""

_STEPS_AT_A_TIME = 64
_ROWS_AT_A_TIME = 16_384
_Rows = tuple[Sequence[RowRange], Sequence[pa.RecordBatch]]
_Step = tuple[Entry, _Rows]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the weights are what topic and step log make of them.

    Args:
        start: name of the checkpoint that the replay began with.
        to: name of the checkpoint that it was compared with.
        numerics: fast or exact.
        is_equal: to the bit (`exact`), or within 1e-5 relative L2 in every window between checkpoints (`fast`).
        steps: data steps computed again.
        rows: rows trained again.
        difference: largest relative L2 difference of the weights at a checkpoint.
        first_difference: where it first differs: checkpoint and tensor; empty when it does not.
        longest_window: data steps between two checkpoints that were compared; `fast` promises nothing beyond 100.
        is_same_code: whether the job had code and packages of this replay at every checkpoint but the first.
        seconds: how long it took.
        audit: every row of the topic against the log.
    """

    start: str
    to: str
    numerics: str
    is_equal: bool
    steps: int
    rows: int
    difference: float
    first_difference: str
    longest_window: int
    is_same_code: bool
    seconds: float
    audit: Audit

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        how = "bit for bit" if self.numerics == "exact" else f"within {self.difference:.1e} relative difference"
        counted = f"{self.audit.trained} rows trained, {self.audit.lost} lost, {self.audit.doubled} doubled"
        if self.audit.open:
            counted += f"; {self.audit.open} of a span that is open here are still to come"
        if self.is_equal:
            return f"equal {how}: {self.steps} steps replayed from {self.start} to {self.to}; {counted}"
        differs = f"differs first at {self.first_difference} (relative difference {self.difference:.1e})"
        if self.numerics != "exact" and self.longest_window > FAST_WINDOW:
            differs += (
                f"; {self.longest_window} steps lie between two checkpoints, and `fast` promises nothing beyond {FAST_WINDOW}"
            )
        if not self.is_same_code:
            differs += "; the code is not the one that the job had there"
        return f"NOT equal: {differs}; {counted}"

    def to_json(self) -> dict[str, Any]:
        """The verdict for a program."""
        return {**asdict(self), "sentence": self.sentence}


def replay(
    store: CheckpointStore,
    *,
    source: Source,
    start: str | None = None,
    to: str | None = None,
    code: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Verdict:
    """Train again what the log says, from checkpoint `start`, and compare at every checkpoint up to `to`.

    Args:
        store: the job's checkpoints.
        source: the job's topic.
        start: name of the first checkpoint; None for the oldest that is kept, normally checkpoint 0.
        to: name of the last; None for the newest.
        code: the user's code, if it is not where the job had it.
        on_progress: called with (what, done, of).

    Raises:
        NotFoundError: there is no such checkpoint.
        InputError: a checkpoint is not part of the job's history, or `to` comes before `start`.
        DataLossError: the topic no longer has the rows.
        CorruptError: a checkpoint or the log does not verify.
        DriftError: this build does not compute as the job's did, or has not the packages that its own fit in; names what differs.
        RequirementsError: the packages of the job's lock cannot be installed here.
    """
    began_s = time.monotonic()
    stops = _stops(store, start=start, to=to)
    first, last = stops[0], stops[-1]
    store.verify(last)
    source.recall(Identity.from_json(last.identity))
    spec = JobSpec.from_json(last.spec_json)
    spec = spec.model_copy(update={"code": code}) if code is not None else spec
    use(read_lock(store, last.lock_sha256))
    rank = Rank(spec, store)
    check_same(last.schema, rank.schema, checkpoint=last.name)
    for stop in stops[1:]:
        _check_numerics(rank, stop)
    digests = {stop.code_sha256 for stop in stops[1:]}
    is_same_code = all(is_digest_of(digest, spec.code, requirements=spec.requirements_file) for digest in digests)
    is_same_code = is_same_code and {stop.lock_sha256 for stop in stops[1:]} <= {last.lock_sha256}
    rank.load(blob=first.blob, progress=first.progress)
    runner = _Runner(store, source, rank, Schema(last.schema), first, last, on_progress)
    compared = [stop for stop in stops[1:] if runner.go_to(stop)]
    different = [text for text, _ in runner.differences if text]
    return Verdict(
        start=first.name,
        to=last.name,
        numerics=spec.train.numerics,
        is_equal=not different,
        steps=last.progress.step - first.progress.step,
        rows=last.progress.rows_trained - first.progress.rows_trained,
        difference=max((value for _, value in runner.differences), default=0.0),
        first_difference=different[0] if different else "",
        longest_window=max((b.progress.step - a.progress.step for a, b in pairwise([first, *compared])), default=0),
        is_same_code=is_same_code,
        seconds=time.monotonic() - began_s,
        audit=audit(
            store,
            source,
            last,
            start=first,
            on_progress=lambda n: on_progress("audit", n, last.progress.rows_trained),
        ),
    )


class _Runner:
    """Walks a rank along the log, from checkpoint to checkpoint."""

    def __init__(
        self,
        store: CheckpointStore,
        source: Source,
        rank: Rank,
        schema: Schema,
        first: Manifest,
        last: Manifest,
        on_progress: Callable[[str, int, int], None],
    ) -> None:
        self._store = store
        self._source = source
        self._rank = rank
        self._stager = rank.begin_alone()
        self._schema = schema
        self._span = first.progress.span
        self._rows: _Rows | None = None  # of the span that is open, once they were read
        self._steps = self._read_ahead(store.entries(last.progress, after=first.progress.plan_number))
        self._first_step = first.progress.step
        self._num_steps = last.progress.step - first.progress.step
        self._on_progress = on_progress
        self._last = last
        self._last_state = read_state(store, blob=last.blob, progress=last.progress)
        self.differences: list[tuple[str, float]] = []
        """By checkpoint: where it differs ('' for nowhere), and by how much."""

    def go_to(self, stop: Manifest) -> bool:
        """Train up to `stop` and compare there; False if a running job has deleted that checkpoint meanwhile."""
        wanted = stop.progress.plan_number - self._rank.replica.progress.plan_number
        for number, (entry, rows) in enumerate(islice(self._steps, wanted), 1):
            self._train(entry, rows)
            if number % _STEPS_AT_A_TIME == 0 or number == wanted:
                self._on_progress("replay", self._rank.replica.progress.step - self._first_step, self._num_steps)
        try:
            there = (
                self._last_state
                if stop.ref == self._last.ref
                else read_state(self._store, blob=stop.blob, progress=stop.progress)
            )
        except CorruptError:
            if stop.ref in self._store.manifests():
                raise
            return False
        replica = self._rank.replica
        self.differences.append(_compare(replica.state(), there, stop, is_exact=replica.is_exact))
        if not replica.is_exact:
            replica.adopt(there)  # rounding grows: each window begins with the job's own weights
        return True

    def _read_ahead(self, entries: Iterator[Entry]) -> Iterator[_Step]:
        """Every entry with its rows; the next ones are read while these are trained."""
        with ThreadPoolExecutor(1, thread_name_prefix="replay") as reader:
            coming = reader.submit(self._read, entries)
            while steps := coming.result():
                coming = reader.submit(self._read, entries)
                yield from steps

    def _read(self, entries: Iterator[Entry]) -> list[_Step]:
        chunk = list(_some(entries))
        ranges = [item for entry in chunk if entry.kind is StepKind.DATA for item in entry.ranges]
        batches = iter(self._source.fetch(ranges, schema=self._schema) if ranges else [])
        return [(entry, self._rows_of(entry, batches)) for entry in chunk]

    def _rows_of(self, entry: Entry, coming: Iterator[pa.RecordBatch]) -> _Rows:
        """Ranges and rows that the entry's are of; those of a later part came with the first one of its span, or are read again."""
        if entry.kind is not StepKind.DATA:
            return (), ()
        if entry.part is None or entry.part.start == 0:
            rows = entry.ranges, list(islice(coming, len(entry.ranges)))
            self._rows = rows if entry.part is not None else None
            return rows
        if self._rows is None and self._span is not None and not entry.skipped:
            self._rows = self._span.ranges, self._source.fetch(self._span.ranges, schema=self._schema)
        return self._rows or ((), ())

    def _train(self, entry: Entry, rows: _Rows) -> None:
        if entry.kind is StepKind.DATA:
            staged = self._staged(entry, rows) if not entry.skipped else ()
            self._rank.step(entry, staged, newest_ms=0)
        else:
            self._rank.replica.control(entry)
        self._rank.replica.tail.seal(entry.number)

    def _staged(self, entry: Entry, rows: _Rows) -> Sequence[SpanBatch]:
        ranges, batches = rows
        pieces = [(index, 0, item.num_rows) for index, item in enumerate(ranges)]
        held_out = [(index, item.num_rows, batches[index].num_rows) for index, item in enumerate(entry.ranges)]
        blocks = dict(enumerate(batches))
        return self._stager.stage(pieces, blocks, num_rows=entry.num_rows, held_out=held_out, part=entry.part)


def _some(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The next ones, as many as are read at a time: at least one, and not more rows than small steps have."""
    num_rows = 0
    for entry in islice(entries, _STEPS_AT_A_TIME):
        yield entry
        num_rows += entry.num_rows
        if num_rows >= _ROWS_AT_A_TIME:
            return


def _stops(store: CheckpointStore, *, start: str | None, to: str | None) -> list[Manifest]:
    """The checkpoints from `start` to `to`, oldest first."""
    last, line = store.find(to), store.history()
    history = [manifest for ref in line if (manifest := store.manifest_if_any(ref)) is not None]
    first = store.find(start) if start is not None else (history or [last])[0]
    for end in (first, last):
        if end.ref not in line:
            raise InputError(
                f"checkpoint {end.name} does not count: a later attempt began before it",
                fix="list those that do with `dtrain checkpoints`",
            )
    if first.ref.plan_number > last.ref.plan_number:
        raise InputError(f"checkpoint {first.name} is later than {last.name}", fix="swap them")
    between = [m for m in history if first.ref.plan_number < m.ref.plan_number < last.ref.plan_number]
    return [first, *between, last] if first.ref != last.ref else [first]


def _check_numerics(rank: Rank, manifest: Manifest) -> None:
    here = rank.replica.numerics
    differing = [f"{k}: {manifest.numerics.get(k)} then, {v} now" for k, v in here.items() if manifest.numerics.get(k) != v]
    if differing and rank.replica.is_exact:
        raise DriftError(
            f"this build does not compute as the job's did: {'; '.join(differing)}", fix="replay where these are equal"
        )


def _compare(here: State, there: State, stop: Manifest, *, is_exact: bool) -> tuple[str, float]:
    if (here.progress.log_hash, here.progress.positions) != (there.progress.log_hash, there.progress.positions):
        return f"checkpoint {stop.name}: log or positions", float("inf")
    if Blob.of(encode_state(here)) == stop.blob:
        return "", 0.0
    names = [name for name in sorted(there.tensors) if not torch.equal(here.tensors[name], there.tensors[name])]
    weights = [name for name in there.tensors if name.startswith("model/")]
    difference = _relative_l2(here, there, weights)
    is_close = not is_exact and difference <= FAST_TOLERANCE
    return ("" if is_close else f"checkpoint {stop.name}, tensor {names[0] if names else 'notes'}"), difference


def _relative_l2(here: State, there: State, names: Sequence[str]) -> float:
    """‖here − there‖ / ‖there‖ over all named tensors together."""
    apart = sum(float((here.tensors[n].double() - there.tensors[n].double()).square().sum()) for n in names)
    whole = sum(float(there.tensors[n].double().square().sum()) for n in names)
    return math.sqrt(apart / whole if whole else apart)
