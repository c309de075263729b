import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.checkpoint.documents import read_document, write_document
from dtrain.errors import CorruptError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON))
def test_document_read_is_what_was_written(value: dict[str, object]) -> None:
    assert read_document(write_document(value), what="x") == value


@given(st.binary())
def test_document_of_any_bytes_is_corrupt_or_whole(content: bytes) -> None:
    with pytest.raises(CorruptError):
        read_document(content, what="x")


def test_document_with_any_bit_flipped_is_corrupt() -> None:
    content = write_document({"a": [1, 2.5, None], "b": {"é": "ü"}, "parent": "p000000000012-a00000001"})
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << random.Random(place).randrange(8)
        with pytest.raises(CorruptError):
            read_document(bytes(flipped), what="x")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[:-1],
        lambda c: c + b"\n",
        lambda c: c.replace(b",", b", "),
        lambda c: b"[" * 100_000,
        lambda c: b"{}",
        lambda c: b'{"sha256":1}',
    ],
)
def test_document_in_another_spelling_is_corrupt(change: object) -> None:
    with pytest.raises(CorruptError):
        read_document(change(write_document({"a": 1, "b": 2})), what="x")  # type: ignore[operator]
