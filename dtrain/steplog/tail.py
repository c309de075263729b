"""The log tail: the entries that a replica has applied and that no sealed segment holds yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import dropwhile
from typing import Any

from dtrain.steplog.entries import GENESIS, Entry, extend_hash


class LogTail:
    """Entries in order, each with the running hash behind it.

    Args:
        base: plan number of the last sealed entry; the tail begins behind it.
        base_hash: the running hash there.
        entries: consecutive.
    """

    def __init__(self, base: int = 0, base_hash: str = GENESIS, entries: Iterable[Entry] = ()) -> None:
        self.base = base
        self.base_hash = base_hash
        self._items: list[tuple[Entry, str]] = []
        for entry in entries:
            self.append(entry, extend_hash(self.last_hash, entry))

    @property
    def last_hash(self) -> str:
        """The running hash behind the last entry."""
        return self._items[-1][1] if self._items else self.base_hash

    def append(self, entry: Entry, log_hash: str) -> None:
        """`entry` was applied; `log_hash` is the running hash behind it."""
        self._items.append((entry, log_hash))

    def seal(self, last: int) -> None:
        """Entries up to `last` are durable: the tail forgets them."""
        log_hash = self.hash_at(last)
        if log_hash is not None and last > self.base:
            self.base, self.base_hash = last, log_hash
            self._items = list(dropwhile(lambda item: item[0].number <= last, self._items))

    def hash_at(self, plan_number: int) -> str | None:
        """The running hash behind entry `plan_number`; None where that is before the tail, or has not been applied."""
        if plan_number == self.base:
            return self.base_hash
        index = plan_number - self.base - 1
        return self._items[index][1] if 0 <= index < len(self._items) else None

    def __iter__(self) -> Iterator[Entry]:
        return (entry for entry, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def to_json(self) -> dict[str, Any]:
        """The tail as JSON, for a peer that receives state."""
        return {"base": self.base, "base_hash": self.base_hash, "entries": [entry.to_json() for entry in self]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LogTail:
        """The tail that `to_json` wrote."""
        return cls(value["base"], value["base_hash"], map(Entry.from_json, value["entries"]))

    def copy(self) -> LogTail:
        """The same tail, which does not grow with this one."""
        twin = LogTail(self.base, self.base_hash)
        twin._items = list(self._items)
        return twin
