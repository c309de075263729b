from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.digits.pngs import SIGNATURE, decode, read, write

IMAGE = write(np.arange(64, dtype=np.uint8).reshape(8, 8))


@given(st.binary(min_size=64, max_size=64))
def test_image_that_is_written_and_read_is_the_same(pixels: bytes) -> None:
    image = np.frombuffer(pixels, np.uint8).reshape(8, 8)
    assert (read(write(image)) == image).all()


@given(st.integers(len(SIGNATURE), len(IMAGE) - 13))
def test_image_with_a_byte_changed_is_refused(at: int) -> None:
    damaged = IMAGE[:at] + bytes([IMAGE[at] ^ 1]) + IMAGE[at + 1 :]
    with pytest.raises((ValueError, KeyError, struct.error, zlib.error)):
        read(damaged)


def test_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="8 by 8"):
        read(write(np.zeros((9, 8), np.uint8)))


def test_decoder_makes_a_row_of_each_record_and_its_key_the_digit() -> None:
    batch = decode([SimpleNamespace(key=b"7", value=IMAGE), SimpleNamespace(key=b"0", value=IMAGE)])  # type: ignore[list-item]
    assert batch["digit"].to_pylist() == [7, 0]
    assert batch["pixels"].to_pylist()[0] == pytest.approx([shade / 255 for shade in range(64)])
