"""A live producer: a PNG image a message, whose key is the digit that it shows.

python -m examples.digits.produce --bootstrap localhost:9092
"""

from __future__ import annotations

from collections.abc import Iterator

from examples.digits.data import images
from examples.digits.pngs import write
from examples.messages import Message, command_line

NUM_PARTITIONS = 2


def messages() -> Iterator[Message]:
    """One for each row of the table, in its order; partitions take turns."""
    for number, (pixels, digit) in enumerate(zip(*images(), strict=True)):
        yield Message(number % NUM_PARTITIONS, write(pixels), key=str(digit).encode())


if __name__ == "__main__":
    command_line(messages(), topic="digits", rate=200)
