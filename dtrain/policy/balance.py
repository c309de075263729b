"""Balance: when slices are shared out anew, because some ranks are slower than others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtrain.policy.slices import even_shares, fair_shares

UNEVEN = 1.25
"""Ranks whose speeds differ by less get equal shares."""

GAIN = 0.85
"""Sharing out anew costs a pause: it must make the slowest rank's part at least so much shorter, and for a while."""

PATIENCE = 5
"""So many looks in a row must agree."""

REST = 30
"""So many looks go by after shares were changed, whatever they see."""


def shares_by_speed(row_s: Sequence[float], *, num_slices: int) -> tuple[int, ...]:
    """Slices of each rank: equal ones, or by speed where that is known of all and differs.

    Args:
        row_s: seconds that each rank takes for a row; 0 where it is not known.
        num_slices: of a step.
    """
    if all(row_s) and max(row_s) > UNEVEN * min(row_s):
        return fair_shares([1 / s for s in row_s], num_slices=num_slices)
    return even_shares(len(row_s), num_slices=num_slices)


@dataclass(slots=True)
class Balance:
    """Watches how long the slowest rank takes; says when other shares are worth a pause."""

    _num_uneven: int = 0
    _rest: int = 0

    def is_worth_it(self, shares: Sequence[int], row_s: Sequence[float]) -> bool:
        """Whether to share out anew. Ask at regular intervals.

        Args:
            shares: slices of each rank that has some, as they are.
            row_s: seconds that each takes for a row; 0 where it is not known.
        """
        better = shares_by_speed(row_s, num_slices=sum(shares))
        now_s, then_s = (max((n * s for n, s in zip(split, row_s, strict=True)), default=0.0) for split in (shares, better))
        is_uneven = all(row_s) and then_s < GAIN * now_s
        self._rest = max(0, self._rest - 1)
        self._num_uneven = self._num_uneven + 1 if is_uneven and not self._rest else 0
        if self._num_uneven < PATIENCE:
            return False
        self._num_uneven, self._rest = 0, REST
        return True
