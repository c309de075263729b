"""Every bad message of the corpus: its rows are bad for the reason that is expected, and its neighbours are not."""

from __future__ import annotations

import pytest

from tests.support.formats import KINDS, Kind
from tests.unit.data.corpus import CORPUS, GOOD, Case
from tests.unit.data.test_formats import decoded, ys

BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize("case", CORPUS, ids=[f"{case.kind}: {case.name}" for case in CORPUS])
def test_decode_of_a_bad_message_says_why_and_keeps_its_neighbours(case: Case) -> None:
    read, good = BY_NAME[case.kind].reader(), GOOD[case.kind]
    block = decoded(read, [good, case.value, good])
    assert [(r.offset, r.row, r.reason) for r in block.meta.rejects] == [(1, row, reason) for row, reason in case.bad.items()]
    assert (ys(block)[0], ys(block)[-1]) == (1, 1)
    assert block.meta.num_rows == 2 + block.meta.raw_rows[1] - len(case.bad)


def test_corpus_is_of_every_format() -> None:
    formats = {kind.name.partition("-")[0] for kind in KINDS}
    assert all(sum(case.kind.startswith(name) and case.value is not None for case in CORPUS) >= 2 for name in formats)
    assert len([case for case in CORPUS if case.value is not None]) >= 30


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_decode_of_the_whole_corpus_at_once_is_as_of_each(kind: Kind) -> None:
    """Of every format's messages too: what is another format's is no more than bad."""
    values = [case.value for case in CORPUS if case.value is None or len(case.value) < 100_000]
    together, alone = decoded(kind.reader(), values), [decoded(kind.reader(), [value]) for value in values]
    assert list(together.meta.raw_rows) == [block.meta.raw_rows[0] for block in alone]
    assert [(r.row, r.reason) for r in together.meta.rejects] == [(r.row, r.reason) for b in alone for r in b.meta.rejects]
