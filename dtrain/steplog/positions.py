"""Coordinates and positions: where in a partition a row stands, and which row comes next.

A *coordinate* is (topic, partition, offset, row within that record), of the raw source, bad rows counted. A *position* is the
**next** coordinate to train in a partition. Offsets are not dense: nothing may compute with differences of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Partition(NamedTuple):
    """A Kafka topic-partition."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Partition:
        """The partition that `str` wrote as `topic:number`."""
        topic, _, number = text.rpartition(":")
        return cls(topic, int(number))


class Position(NamedTuple):
    """The next coordinate of a partition: record `offset`, row `row` within it. Ordered."""

    offset: int
    row: int = 0


Positions = Mapping[Partition, Position]


class Mark(NamedTuple):
    """A record that a partition held: another one at its offset tells that the topic is not what it was.

    Args:
        offset: of the record.
        crc: CRC-32C of its key and value.
    """

    offset: int
    crc: int


def after(offset: int, row: int, num_rows: int) -> Position:
    """The position behind row `row` of the record at `offset`, which holds `num_rows` rows (one way to write each place)."""
    return Position(offset + 1) if row + 1 >= num_rows else Position(offset, row + 1)


def positions_to_json(positions: Positions) -> dict[str, list[int]]:
    """Positions as JSON, keyed by partition in a fixed order."""
    return {str(partition): list(positions[partition]) for partition in sorted(positions)}


def positions_from_json(value: Mapping[str, list[int]]) -> dict[Partition, Position]:
    """Positions as `positions_to_json` wrote them."""
    return {Partition.parse(name): Position(*place) for name, place in value.items()}
