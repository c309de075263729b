from __future__ import annotations

import pytest

from dtrain.errors import InputError
from dtrain.job.ids import check_label, new_job_id


@pytest.mark.parametrize("text", ["", "-a", "a-", "A", "a_b", "a/b", "..", "a\n", "\na", "a b", "ä", "a" * 64, "a\x00"])
def test_text_that_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a name"):
        check_label(text, "job")


@pytest.mark.parametrize("text", ["a", "7", "flights-x7k2p", "a" * 63])
def test_label_is_answered_as_it_is(text: str) -> None:
    assert check_label(text, "job") == text


@pytest.mark.parametrize("name", ["a", "a" * 56])
def test_job_id_begins_with_the_name_is_a_label_and_fresh(name: str) -> None:
    made = {new_job_id(name) for _ in range(100)}
    assert len(made) > 95
    assert all(check_label(job_id, "job").startswith(f"{name}-") for job_id in made)
