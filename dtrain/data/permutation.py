"""Permutations: the order in which the rows of a span are trained, a function of three numbers that nobody's library can change.

Row i of a span of n rows has the key  mix(start + (i + 1) * GAMMA),  all modulo 2^64: SplitMix64 (Steele, Lea, Flood 2014). The order is
that of the keys. `mix` is one to one and GAMMA is odd, so no two keys of a span are equal, and whatever sorts gives the same.

    mix(z):  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;  z = (z ^ z >> 27) * 0x94d049bb133111eb;  z ^ z >> 31
    start:   mix(mix(seed + GAMMA) ^ opened),  GAMMA = 0x9e3779b97f4a7c15

None of this may ever change: logs live by it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from dtrain.steplog.spans import Part

_GAMMA = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def order_of(part: Part) -> np.ndarray:
    """The rows of the span of `part`, int64 [span_rows], in the order in which its parts take them; not to be written to."""
    return _order(part.seed, part.opened, part.span_rows)


@lru_cache(maxsize=2)  # a span has many parts; a replay reads one span ahead
def _order(seed: int, opened: int, num_rows: int) -> np.ndarray:
    start = _mix(np.array([(seed + _GAMMA) & _MASK], np.uint64))
    start = _mix(start ^ np.uint64(opened & _MASK))
    keys = _mix(start + np.arange(1, num_rows + 1, dtype=np.uint64) * np.uint64(_GAMMA))
    order = np.argsort(keys, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed
