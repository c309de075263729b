"""De-duplication: which rows have a key that was seen within the last rows of their partition.

Any row counts that comes so far, be it a duplicate itself. So what is known of a partition at some place depends on the rows of one
window before it, and on nothing before these: a reader that starts there reads them again, and knows the same.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

NEVER = -(2**63)
SPARE_KEYS = 10_000


@dataclass(slots=True)
class RecentKeys:
    """The keys of the last rows of a partition.

    Args:
        window_rows: raw rows, bad ones counted, that a key is remembered for.
        num_rows: raw rows passed so far.
    """

    window_rows: int
    num_rows: int = 0
    _last: dict[Hashable, int] = field(default_factory=dict)
    _message: tuple[int, bool] = (-1, False)

    def of_rows(self, keys: Sequence[Hashable], places: Sequence[int]) -> list[bool]:
        """Which rows are duplicates.

        Args:
            keys: of some rows of the raw rows that are passed next; None for one that is no duplicate of anything.
            places: of these rows among those that are passed next, rising.
        """
        return [key is not None and self._is_known(key, self.num_rows + place) for key, place in zip(keys, places, strict=True)]

    def of_messages(self, keys: Sequence[Hashable], places: Sequence[int], offsets: Sequence[int]) -> list[bool]:
        """The same where the key is the message's: its rows are no duplicates of each other; `offsets` are of their messages."""
        found = []
        for key, place, offset in zip(keys, places, offsets, strict=True):
            if offset != self._message[0]:
                self._message = offset, key is not None and self._is_known(key, self.num_rows + place)
            elif key is not None:
                self._last[key] = self.num_rows + place
            found.append(self._message[1])
        return found

    def advance(self, num_rows: int) -> None:
        """So many raw rows are passed; keys that are too old are forgotten now and then, so that memory is bounded."""
        self.num_rows += num_rows
        if len(self._last) > self.window_rows + max(self.window_rows // 4, SPARE_KEYS):
            self._last = {key: at for key, at in self._last.items() if self.num_rows - at <= self.window_rows}

    def _is_known(self, key: Hashable, at: int) -> bool:
        seen = self._last.get(key, NEVER)
        self._last[key] = at
        return at - seen <= self.window_rows
