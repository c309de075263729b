"""Hashed categories: a text or an integer to one of a number of buckets, the same on every machine and in every version.

The hash of some bytes, all arithmetic modulo 2^64:

    h = mix(seed ^ length)
    for each 8 bytes, little-endian, the last ones filled up with zeros:  h = mix(h ^ word)

`mix` is the finaliser of MurmurHash3 (Appleby 2011): x ^= x >> 33; x *= 0xff51afd7ed558ccd; x ^= x >> 33;
x *= 0xc4ceb9fe1a85ec53; x ^= x >> 33. A text's bytes are its UTF-8, an integer's its 8 bytes in two's complement,
little-endian. The bucket is the hash modulo the number of buckets. None of this may ever change: models live by it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

MAX_BYTES = 4096
"""Longest text that is a category."""

_WORD = 8


def buckets_of_texts(values: pa.Array, *, num_buckets: int, seed: int) -> np.ndarray:
    """The bucket of each text or byte string, int64 [len(values)].

    Args:
        values: `large_binary`, without nulls.
        num_buckets: >= 1.
        seed: not negative.
    """
    offsets = np.frombuffer(values.buffers()[1] or b"\0" * _WORD, np.int64)[values.offset : values.offset + len(values) + 1]
    begins, lengths = offsets[:-1], np.diff(offsets)
    words = _words(values.buffers()[2])
    hashes = mix(np.uint64(seed) ^ lengths.astype(np.uint64))
    place, rows = 0, np.flatnonzero(lengths)
    while len(rows):
        left = lengths[rows] - place
        word = words[begins[rows] + place]
        excess = (_WORD * (_WORD - np.minimum(left, _WORD))).astype(np.uint64)  # bits behind the end of the value
        hashes[rows] = mix(hashes[rows] ^ (word & (np.uint64(2**64 - 1) >> excess)))
        place += _WORD
        rows = rows[left > _WORD]
    return _bucket(hashes, num_buckets)


def buckets_of_integers(values: np.ndarray, *, num_buckets: int, seed: int) -> np.ndarray:
    """The bucket of each integer, int64 as `values` are."""
    start = mix(np.array([seed ^ _WORD], np.uint64))
    return _bucket(mix(start ^ values.astype(np.int64).view(np.uint64)), num_buckets)


def _words(data: pa.Buffer | None) -> np.ndarray:
    """The 8 bytes from each place of `data` on, as one number; zeros behind its end."""
    raw = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    padded = np.zeros(len(raw) + _WORD, np.uint8)
    padded[: len(raw)] = raw
    return np.ndarray(len(raw) + 1, "<u8", buffer=padded, strides=(1,))


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3 of each, uint64; see the module."""
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: np.ndarray = x ^ (x >> np.uint64(33))
    return mixed


def _bucket(hashes: np.ndarray, num_buckets: int) -> np.ndarray:
    found: np.ndarray = (hashes % np.uint64(num_buckets)).astype(np.int64)
    return found
