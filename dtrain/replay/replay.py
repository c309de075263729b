"""Replay: from one checkpoint to a later one by topic and step log, in one plain process that knows nothing of Ray or gRPC."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from typing import Any

import torch

from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.data.schema import Schema
from dtrain.errors import CorruptError, DriftError, InputError, NotFoundError
from dtrain.rank import Rank
from dtrain.replay.audit import Audit, audit
from dtrain.snapshot import encode_state, read_state
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Entry, StepKind
from dtrain.steplog.fences import ManifestRef
from dtrain.stream.source import Source
from dtrain.train.collective import InlineCollective
from dtrain.train.state import State

FAST_TOLERANCE = 1e-5
FAST_WINDOW = 100
_STEPS_AT_A_TIME = 64


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
    seconds: float
    audit: Audit

    @property
    def sentence(self) -> str:
        """The verdict for a person."""
        how = "bit for bit" if self.numerics == "exact" else f"within {self.difference:.1e} relative difference"
        counted = f"{self.audit.trained} rows trained, {self.audit.lost} lost, {self.audit.doubled} doubled"
        if self.is_equal:
            return f"equal {how}: {self.steps} steps replayed from {self.start} to {self.to}; {counted}"
        return f"NOT equal: differs first at {self.first_difference} (relative difference {self.difference:.1e}); {counted}"

    def to_json(self) -> dict[str, Any]:
        """The verdict for a program."""
        return {**asdict(self), "audit": self.audit.to_json(), "sentence": self.sentence}


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
        DataLossError: the topic no longer has the rows.
        CorruptError: a checkpoint or the log does not verify.
        DriftError: this build does not compute as the job's did; names what differs.
    """
    began_s = time.monotonic()
    stops = _stops(store, start=start, to=to)
    first, last = stops[0], stops[-1]
    store.verify(last)
    spec = JobSpec.from_json(last.spec_json)
    spec = spec.model_copy(update={"code": code}) if code is not None else spec
    rank = Rank(spec, store)
    _check_numerics(rank, last)
    rank.join(InlineCollective())
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
        seconds=time.monotonic() - began_s,
        audit=audit(
            store,
            source,
            last,
            start=_beginning(store),
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
        self._schema = schema
        self._entries = store.entries(last.progress, after=first.progress.plan_number)
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
        for entries in _chunks(islice(self._entries, wanted), _STEPS_AT_A_TIME):
            self._train(entries)
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

    def _train(self, entries: Sequence[Entry]) -> None:
        ranges = [item for entry in entries if entry.kind is StepKind.DATA for item in entry.ranges]
        batches = iter(self._source.fetch(ranges, schema=self._schema))
        for entry in entries:
            if entry.kind is StepKind.DATA:
                blocks = {index: next(batches) for index in range(len(entry.ranges))}
                pieces = [(index, 0, blocks[index].num_rows) for index in blocks]
                staged = self._rank.stage(pieces, blocks, num_rows=entry.num_rows)
                self._rank.step(entry, staged, newest_ms=0)
            else:
                self._rank.replica.control(entry)
        self._rank.replica.tail.clear()


def _stops(store: CheckpointStore, *, start: str | None, to: str | None) -> list[Manifest]:
    """The checkpoints from `start` to `to`, oldest first."""
    last = store.find(to)
    history = [manifest for ref in store.history() if (manifest := _still(store, ref)) is not None]
    first = store.find(start) if start is not None else history[0]
    if first.ref.plan_number > last.ref.plan_number:
        raise InputError(f"checkpoint {first.name} is later than {last.name}", fix="swap them")
    between = [m for m in history if first.ref.plan_number < m.ref.plan_number < last.ref.plan_number]
    return [first, *between, last] if first.ref != last.ref else [first]


def _still(store: CheckpointStore, ref: ManifestRef) -> Manifest | None:
    """The manifest, unless a running job has deleted it meanwhile."""
    try:
        return store.read_manifest(ref)
    except NotFoundError:
        return None


def _beginning(store: CheckpointStore) -> Any:
    return store.read_manifest(store.history()[0]).progress.positions


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
    if hashlib.sha256(encode_state(here)).hexdigest() == stop.blob.sha256:
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


def _chunks(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    while chunk := list(islice(entries, size)):
        yield chunk
