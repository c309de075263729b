"""A live producer: Arrow messages of 16 rows, each an airport and an hour.

python -m examples.weather.produce --bootstrap localhost:9092
"""

from __future__ import annotations

from collections.abc import Iterator

from examples.messages import Message, arrow_messages, command_line
from examples.weather.data import table

NUM_PARTITIONS = 2
MESSAGE_ROWS = 16


def messages() -> Iterator[Message]:
    """The rows of the table in the order of time; partitions take turns."""
    return arrow_messages(table(), rows=MESSAGE_ROWS, num_partitions=NUM_PARTITIONS)


if __name__ == "__main__":
    command_line(messages(), topic="weather", rate=500)
