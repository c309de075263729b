"""Prequential scores merge exactly, and mean what their names say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtrain.errors import TaskError
from dtrain.train.scores import NUM_BINS, ScoreBoard, Scorer, auroc
from tests.support.ranks import MixedTask


def _naive_auroc(probabilities: list[float], labels: list[int]) -> float:
    positive = [int(p * NUM_BINS) for p, y in zip(probabilities, labels, strict=True) if y]
    negative = [int(p * NUM_BINS) for p, y in zip(probabilities, labels, strict=True) if not y]
    pairs = [(a > b) + (a == b) / 2 for a in positive for b in negative]
    return sum(pairs) / len(pairs)


rows = st.lists(st.tuples(st.floats(0, 0.9990234375, width=32), st.integers(0, 1)), min_size=2, max_size=40)


class ProbabilityTask(MixedTask):
    def predict(self, outputs, batch):  # type: ignore[no-untyped-def]
        return outputs


@given(rows)
def test_auroc_of_histograms_is_the_share_of_ordered_pairs(sample: list[tuple[float, int]]) -> None:
    probabilities, labels = [p for p, _ in sample], [y for _, y in sample]
    scorer = Scorer(["auroc"], task=ProbabilityTask())
    sums = scorer.sums(
        torch.tensor(probabilities), {"y": torch.tensor(labels).float()}, num_rows=len(labels), loss=torch.tensor(1.0)
    )
    if len(set(labels)) == 2:
        assert auroc(sums[3:]) == pytest.approx(_naive_auroc(probabilities, labels))
    else:
        assert auroc(sums[3:]) is None


@given(rows, st.integers(0, 40))
def test_scorer_two_parts_add_up_to_the_whole(sample: list[tuple[float, int]], cut: int) -> None:
    scorer = Scorer(["auroc", "accuracy"], task=ProbabilityTask())

    def sums(part: list[tuple[float, int]]) -> torch.Tensor:
        return scorer.sums(
            torch.tensor([p for p, _ in part]),
            {"y": torch.tensor([float(y) for _, y in part])},
            num_rows=len(part),
            loss=torch.tensor(float(len(part))),
        )

    assert torch.equal(sums(sample[:cut]) + sums(sample[cut:]), sums(sample))


def test_scorer_metrics_without_label_is_refused() -> None:
    task = MixedTask()
    task.label = ""
    with pytest.raises(TaskError, match="no `label`"):
        Scorer(["auroc"], task=task)


def test_scorer_wrong_shape_of_predictions_is_refused_by_name() -> None:
    scorer = Scorer(["auroc"], task=ProbabilityTask())
    with pytest.raises(TaskError, match=r"ProbabilityTask.predict gave shape \[3, 2\]"):
        scorer.sums(torch.zeros(3, 2), {"y": torch.zeros(3)}, num_rows=3, loss=torch.tensor(3.0))


@pytest.mark.parametrize(
    ("predicted", "label", "words"),
    [
        ([4, 1], [4], r"ProbabilityTask.predict gave shape \[4, 1\] for 4 rows"),
        ([4, 0], [4], r"ProbabilityTask.predict gave shape \[4, 0\] for 4 rows"),
        ([4], [4, 1], r"ProbabilityTask.label is a column of shape \[1\] a row"),
    ],
)
def test_scorer_columns_that_would_be_compared_otherwise_than_row_by_row_are_refused(
    predicted: list[int], label: list[int], words: str
) -> None:
    scorer = Scorer(["accuracy"], task=ProbabilityTask())
    with pytest.raises(TaskError, match=words):
        scorer.sums(torch.zeros(predicted), {"y": torch.zeros(label)}, num_rows=4, loss=torch.tensor(1.0))


def test_board_window_forgets_and_total_does_not() -> None:
    board = ScoreBoard(2, window_rows=100)
    for value in range(50):
        board.add(torch.tensor([10.0, value]), num_rows=10)
    assert board.total.tolist() == [500.0, sum(range(50))]
    assert board.window()[0] == 200.0  # twenty buckets, each closed by the first step that fills it


def test_board_restored_goes_on_alike() -> None:
    one, two = ScoreBoard(2, window_rows=40), ScoreBoard(2, window_rows=40)
    for value in range(9):
        one.add(torch.tensor([3.0, value]), num_rows=3)
    two.load(one.state())
    for board in (one, two):
        board.add(torch.tensor([3.0, 1.0]), num_rows=3)
    assert torch.equal(one.window(), two.window())
    assert torch.equal(one.total, two.total)
