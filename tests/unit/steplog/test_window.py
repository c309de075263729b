"""The window of bad rows, and the kinds of reasons."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.steplog.reasons import KINDS, kind_of
from dtrain.steplog.window import RejectWindow

STEPS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)).map(lambda pair: (max(pair), min(pair))), max_size=300)


@given(STEPS)
def test_window_holds_the_last_steps_that_have_its_rows_or_a_little_less(steps: list[tuple[int, int]]) -> None:
    window = RejectWindow(10_000)
    for rows, bad in steps:
        window = window.add(rows=rows, bad=bad)
    held = next((n for n in range(len(steps) + 1) if sum(r for r, _ in steps[len(steps) - n :]) == window.rows), None)
    assert held is not None, "a window is of whole steps, the last ones"
    assert window.rows == sum(r for r, _ in steps) or 9_500 <= window.rows <= 10_000 + 20 * 500
    assert len(window.buckets) <= 20


@given(STEPS)
def test_window_read_goes_on_as_the_one_that_was_written(steps: list[tuple[int, int]]) -> None:
    window = RejectWindow(1_000)
    for rows, bad in steps:
        window = window.add(rows=rows, bad=bad)
    read = RejectWindow.from_json(json.loads(json.dumps(window.to_json())))
    assert read == window
    assert read.add(rows=7, bad=3) == window.add(rows=7, bad=3)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("no value", "value"),
        ("not a JSON object", "value"),
        ("not an Arrow IPC stream, or a broken one", "value"),
        ("column 'x' is missing", "missing"),
        ("column 'x' is missing, and every other", "missing"),
        ("column 'x' is there twice", "missing"),
        ("column 'is null' is missing", "missing"),
        ("column 'x' is null", "null"),
        ("column 'x' has not the shape of float32[2]", "shape"),
        ("column 'x': string is not int64", "type"),
        ('column "it\'s": string is not int64', "type"),
        ("column 'x': a double does not fit int64", "range"),
        ("column 'x' is NaN or infinite", "range"),
        ("column 'x': a weight is negative", "range"),
        ("column 'x': a string is not in the vocabulary", "range"),
        ("column 'x': a category is longer than 4096 bytes", "range"),
        ("column 'x': whatever", "other"),
    ],
)
def test_reason_is_of_one_of_a_few_kinds(reason: str, kind: str) -> None:
    assert kind in KINDS
    assert kind_of(reason) == kind


@given(st.text())
def test_kinds_are_bounded_whatever_the_reason(reason: str) -> None:
    assert kind_of(reason) in KINDS
