"""A row of figures as a row of blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Iterable[float | None], *, width: int) -> str:
    """The last `width` values, the least as the lowest block and the greatest as the highest; what is no number is a gap."""
    shown = list(values)[-width:]
    finite = [value for value in shown if value is not None and math.isfinite(value)]
    if not finite:
        return " " * len(shown)
    low = min(finite) / 2  # halves: the difference of two finite values may be infinite
    span = max(finite) / 2 - low

    def block(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return " "
        return BLOCKS[round((value / 2 - low) / span * (len(BLOCKS) - 1)) if span else 0]

    return "".join(map(block, shown))
