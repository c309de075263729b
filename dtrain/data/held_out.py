"""Held-out rows: drawn by seed and coordinate alone, so that a row that was once held out always is.

The draw is a hash below the share of 2^64. With `mix` the finaliser of MurmurHash3 (Appleby 2011), all modulo 2^64,

    h = mix(mix(start ^ offset) ^ row)        start: the first 8 bytes, big-endian, of sha256("held out,SEED,TOPIC:PARTITION")
"""

from __future__ import annotations

import hashlib

import numpy as np

from dtrain.data.hashing import mix
from dtrain.steplog.positions import Partition


def is_held_out(partition: Partition, offsets: np.ndarray, rows: np.ndarray, *, seed: int, share: float) -> np.ndarray:
    """Which rows are never trained, bool [rows].

    Args:
        partition: theirs.
        offsets: int64, of their records.
        rows: int64, within these.
        seed: the job's.
        share: below 1.
    """
    digest = hashlib.sha256(f"held out,{seed},{partition}".encode()).digest()
    start = np.uint64(int.from_bytes(digest[:8], "big"))
    drawn = mix(mix(start ^ offsets.astype(np.uint64)) ^ rows.astype(np.uint64))
    found: np.ndarray = drawn < np.uint64(int(share * 2**64))
    return found
