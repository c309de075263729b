"""A live producer: a rating a message, as JSON with what is known of user and film.

python -m examples.movielens.produce --bootstrap localhost:9092
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain

from examples.messages import Message, command_line
from examples.movielens.data import table

NUM_PARTITIONS = 4


def messages() -> Iterator[Message]:
    """One for each row of the table, in the order of time; partitions take turns."""
    ratings = chain.from_iterable(batch.to_pylist() for batch in table().to_batches(max_chunksize=1024))
    for number, rating in enumerate(ratings):
        yield Message(number % NUM_PARTITIONS, json.dumps(rating).encode())


if __name__ == "__main__":
    command_line(messages(), topic="movielens", rate=2000)
