"""A live producer: a review a message, as JSON with its text.

python -m examples.reviews.produce --bootstrap localhost:9092
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from examples.messages import Message, command_line
from examples.reviews.data import reviews

NUM_PARTITIONS = 2


def messages() -> Iterator[Message]:
    """One for each row of the table, in its order; partitions take turns."""
    for number, review in enumerate(reviews().to_pylist()):
        yield Message(number % NUM_PARTITIONS, json.dumps(review).encode())


if __name__ == "__main__":
    command_line(messages(), topic="reviews", rate=1000)
