"""A message counts as in with the first landing that holds all of it."""

from __future__ import annotations

import numpy as np

from benchmarks.p11_freshness import PARTITIONS, Landing, _arrived_s, _freshness


def test_arrived_with_the_first_landing_beyond_its_offset() -> None:
    assert PARTITIONS == 2
    line = [Landing(1.0, (1, 0)), Landing(2.0, (1, 2)), Landing(3.0, (2, 2))]
    assert _arrived_s(5, line).tolist() == [1.0, 2.0, 3.0, 2.0, np.inf]


def test_freshness_leaves_out_the_beginning_and_what_no_version_could_hold() -> None:
    sent_s = np.arange(0.0, 100.0)
    landed = [Landing(200.0, (100, 100))]
    found = _freshness(sent_s, landed, landed, tail_s=30.0)
    assert found.weights_ms.max() == (200.0 - 8.0) * 1000
    assert found.version_ms.min() == (200.0 - 69.0) * 1000
