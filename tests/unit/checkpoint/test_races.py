import itertools
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtrain.checkpoint import attempts, commit, store
from dtrain.steplog import fences, segments
from tests.support.races import Race, ViolationError


@pytest.fixture(autouse=True, scope="module")
def no_power_cuts_and_much_merging() -> object:
    """Power is never cut here, and what fsync is for is tested with the files: without it a history takes half the time.

    Two log segments of a tier are merged already, by joining or by an index.
    """
    patch = pytest.MonkeyPatch()
    patch.setattr(os, "fsync", lambda _: None)
    patch.setattr(segments, "FANOUT", 2)
    patch.setattr(segments, "JOINED_BYTES", 400)
    yield
    patch.undo()


def run(rng: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Race(Path(folder), rng).run()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.randoms(use_true_random=False))
def test_racing_coordinators_leave_one_line_of_checkpoints(rng: random.Random) -> None:
    run(rng)


def list_then_claim(patch: pytest.MonkeyPatch) -> None:
    real = attempts._claim_fence
    found: dict[object, object] = {}

    def claim_fence(s: store.CheckpointStore, *, incarnation: int) -> int:
        found[s] = newest(s, attempt=10**6, on_skip=lambda _: None)
        return real(s, incarnation=incarnation)

    newest = attempts._newest_sound
    patch.setattr(attempts, "_claim_fence", claim_fence)
    patch.setattr(attempts, "_newest_sound", lambda s, **_: found[s])


def never_void(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(store.CheckpointStore, "void", lambda *_: None)


def never_recheck(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commit, "is_fenced", lambda *_: False)


def only_the_next_fence(patch: pytest.MonkeyPatch) -> None:
    real = fences.counts
    patch.setattr(fences, "counts", lambda m, known: real(m, [f for f in known if f.attempt == m.attempt + 1]))


def keep_whatever_is_newest(patch: pytest.MonkeyPatch) -> None:
    real = store.CheckpointStore.keep

    def keep(self: store.CheckpointStore, number: int) -> object:
        self.fences = dict  # type: ignore[method-assign]
        try:
            return real(self, number)
        finally:
            del self.fences

    patch.setattr(store.CheckpointStore, "keep", keep)


SEEDS = {list_then_claim: 7, never_void: 7, never_recheck: 1, only_the_next_fence: 27, keep_whatever_is_newest: 66}
"""By rule, one that breaks without it. Who changes the code that races changes the histories: then others are tried."""


@pytest.mark.parametrize(("breaks", "known"), SEEDS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_race_without_one_rule_is_seen_to_break(
    monkeypatch: pytest.MonkeyPatch, breaks: Callable[[pytest.MonkeyPatch], None], known: int
) -> None:
    """Each rule of the protocol is needed, and the oracle above can fail."""
    breaks(monkeypatch)
    for seed in itertools.chain([known], range(400)):
        try:
            run(random.Random(seed))
        except ViolationError:
            return
    pytest.fail("no seed breaks it")
