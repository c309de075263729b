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
    low, high = min(finite), max(finite)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0

    def block(value: float | None) -> str:
        return " " if value is None or not math.isfinite(value) else BLOCKS[round((value - low) * scale)]

    return "".join(map(block, shown))
