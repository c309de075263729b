from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.scores import SCORES, accuracy, auroc, rmse

ROWS = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.7]), st.booleans()), min_size=2).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(ROWS)
def test_auroc_is_the_share_of_pairs_that_are_ranked_right(rows: list[tuple[float, bool]]) -> None:
    pairs = [(p, q) for p, is_one in rows for q, is_other in rows if is_one and not is_other]
    expected = np.mean([(p > q) + (p == q) / 2 for p, q in pairs])
    predicted, labels = np.array(rows, dtype=float).T
    assert auroc(predicted, labels) == pytest.approx(expected)


def test_accuracy_of_classes_and_of_probabilities() -> None:
    assert accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1.0, 1.0])) == 0.5
    assert accuracy(np.array([0.9, 0.2, 0.5]), np.array([1.0, 1.0, 1.0])) == pytest.approx(2 / 3)


def test_rmse_is_in_the_labels_unit() -> None:
    assert rmse(np.array([1.0, 5.0]), np.array([1.0, 1.0])) == pytest.approx(8**0.5)


@pytest.mark.parametrize(("metric", "expected"), [("accuracy", 0.75), ("auroc", 0.5), ("rmse", 0.75**0.5 / 2)])
def test_constant_scores_as_the_best_one_would(metric: str, expected: float) -> None:
    assert SCORES[metric].constant(np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(expected)
