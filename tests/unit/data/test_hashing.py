"""The hash of categories: equal to its definition, and to what it has always been."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.hashing import buckets_of_integers, buckets_of_texts

BIT64 = 2**64 - 1


def mix(x: int) -> int:
    x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & BIT64
    x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & BIT64
    return x ^ (x >> 33)


def defined(value: bytes, *, seed: int = 0) -> int:
    """The definition, byte by byte."""
    found = mix(seed ^ len(value))
    for start in range(0, len(value), 8):
        found = mix(found ^ int.from_bytes(value[start : start + 8].ljust(8, b"\0"), "little"))
    return found


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 5))
def test_bucket_of_a_text_is_the_definitions(values: list[bytes], num_buckets: int, seed: int, skipped: int) -> None:
    array = pa.array([b"before"] * skipped + values, pa.large_binary()).slice(skipped)
    found = buckets_of_texts(array, num_buckets=num_buckets, seed=seed)
    assert found.tolist() == [defined(value, seed=seed) % num_buckets for value in values]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_bucket_of_an_integer_is_that_of_its_eight_bytes(values: list[int], num_buckets: int, seed: int) -> None:
    found = buckets_of_integers(np.array(values, np.int64), num_buckets=num_buckets, seed=seed)
    assert found.tolist() == [defined(v.to_bytes(8, "little", signed=True), seed=seed) % num_buckets for v in values]


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        ("", 0),
        ("a", 121413),
        ("user-1", 919895),
        ("user-2", 974965),
        ("Zürich", 172468),
        ("a text that is longer than one word", 726495),
    ],
)
def test_buckets_never_change(value: str, bucket: int) -> None:
    array = pa.array([value.encode()], pa.large_binary())
    assert buckets_of_texts(array, num_buckets=1_000_003, seed=0).tolist() == [bucket]


def test_buckets_of_similar_names_are_spread_evenly() -> None:
    array = pa.array([f"user-{i}".encode() for i in range(64_000)], pa.large_binary())
    counts = np.bincount(buckets_of_texts(array, num_buckets=64, seed=0), minlength=64)
    assert counts.min() > 850
    assert counts.max() < 1150
