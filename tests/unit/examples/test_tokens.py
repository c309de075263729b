from __future__ import annotations

import json
from types import SimpleNamespace

from examples.reviews import reviews
from examples.reviews.tokens import LENGTH, NUM_WORDS, decode, words_of


def test_words_are_ids_below_the_tasks_number_and_zeros_behind_the_last() -> None:
    assert (NUM_WORDS, LENGTH) == (reviews.NUM_WORDS, reviews.LENGTH)
    short, long, empty = words_of(["Love it, love it!", "word " * 100, ""]).to_pylist()
    assert short[0] == short[2] != short[1]
    assert [bool(word) for word in short] == [True] * 5 + [False] * (LENGTH - 5)
    assert set(long) == {long[0]}
    assert not any(empty)
    assert all(0 <= word < NUM_WORDS for word in (*short, *long))


def test_decoder_makes_a_row_of_each_record() -> None:
    value = json.dumps({"review": "Love it", "recommended": 1.0}).encode()
    batch = decode([SimpleNamespace(value=value), SimpleNamespace(value=value)])  # type: ignore[list-item]
    assert batch["words"].to_pylist() == words_of(["love it"] * 2).to_pylist()
    assert batch["recommended"].to_pylist() == [1.0, 1.0]
