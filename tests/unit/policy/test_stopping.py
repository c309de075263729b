from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.policy.stopping import EarlyStop
from dtrain.steplog.progress import Progress
from dtrain.steplog.report import TrainReport


def report(value: float | None, *, rows: int, metric: str = "loss") -> TrainReport:
    scores = {} if metric == "loss" or value is None else {metric: value}
    return TrainReport(Progress(rows_trained=rows), 0, value if metric == "loss" else 0.5, scores, None, {})


def stopped_at(values: list[float | None], stop: EarlyStop) -> int:
    """Which of the reports, one every 10 rows, says stop; 0 for none."""
    for number, value in enumerate(values, 1):
        if stop.verdict(report(value, rows=10 * number, metric=stop.metric)):
            return number
    return 0


@pytest.mark.parametrize(
    ("metric", "min_delta", "values", "number"),
    [
        ("loss", 0.0, [5.0, 4.0, 3.0, 2.0, 1.0], 0),
        ("loss", 0.0, [5.0, 4.0, 4.0, 4.0, 4.0], 5),
        ("loss", 0.0, [5.0, 6.0, 6.0, 4.0, 5.0], 0),
        ("loss", 1.5, [5.0, 4.0, 4.5, 4.0, 2.0], 4),
        ("loss", 0.0, [None, None, None, None, None], 0),
        ("auroc", 0.0, [0.5, 0.6, 0.7, 0.8, 0.9], 0),
        ("auroc", 0.0, [0.5, 0.4, 0.4, 0.4, 0.9], 4),
        ("auroc", 0.0, [0.5, None, 0.4, 0.4, 0.4], 5),
    ],
)
def test_job_stops_when_the_score_was_not_better_for_patience_rows(
    metric: str, min_delta: float, values: list[float | None], number: int
) -> None:
    assert stopped_at(values, EarlyStop(metric, patience_rows=30, min_delta=min_delta)) == number


def test_reason_names_the_best_score_and_where_it_was() -> None:
    stop = EarlyStop("loss", patience_rows=1000)
    assert stop.verdict(report(0.25, rows=500)) == ""
    assert stop.verdict(report(0.26, rows=1499)) == ""
    assert stop.verdict(report(0.26, rows=1500)) == "loss has not been better than 0.25 since 500 of 1,500 rows"


def test_going_back_to_a_checkpoint_stops_nothing() -> None:
    stop = EarlyStop("loss", patience_rows=10)
    assert not stop.verdict(report(1.0, rows=1000))
    assert not stop.verdict(report(2.0, rows=100))


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 8))
def test_job_never_stops_within_patience_of_its_best_score(values: list[float], patience: int) -> None:
    at = stopped_at(list(values), EarlyStop("accuracy", patience_rows=10 * patience))
    if at:
        best = max(values[:at])
        assert at - 1 - values.index(best) == patience
