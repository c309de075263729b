"""Poison steps, kept beside a job's checkpoints: what blocked it, and what its user has allowed it to skip.

poison/p{number}.json         the ranges of a step that killed whoever computed it     made if absent
poison/p{number}.skip.json    they are to be skipped                                  made if absent
"""

from __future__ import annotations

from collections.abc import Iterable

from dtrain.checkpoint.documents import read_document, write_document
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import DtrainError
from dtrain.steplog.ranges import RowRange

_FOLDER = "poison"
_SKIP = ".skip.json"


def record_poison(store: CheckpointStore, ranges: Iterable[RowRange]) -> DtrainError | None:
    """A poison step is known, durably; none of its rows is skipped by that.

    Returns:
        Why it could not be recorded, if so: the job has to end as it would have, and is asked to skip what it finds again.
    """
    content = write_document({"ranges": [item.to_json() for item in ranges]})
    try:
        known = _records(store)
        if content not in (store.files.read(f"{_FOLDER}/{name}") for name in known):
            number = len(known)
            while not store.files.create(f"{_FOLDER}/p{number:06d}.json", content):
                number += 1  # somebody's, which the list did not show yet
    except DtrainError as error:
        return error
    return None


def allow_skips(store: CheckpointStore) -> None:
    """Every step that is recorded by now is to be skipped."""
    for name in _records(store):
        store.files.create(f"{_FOLDER}/{name.removesuffix('.json')}{_SKIP}", write_document({"skip": True}))


def skips(store: CheckpointStore) -> tuple[RowRange, ...]:
    """The rows that are to be skipped."""
    names = store.files.modified(_FOLDER)
    allowed = [name for name in _records(store) if f"{name.removesuffix('.json')}{_SKIP}" in names]
    documents = [read_document(store.files.read(f"{_FOLDER}/{name}"), what=name) for name in allowed]
    return tuple(RowRange.from_json(item) for document in documents for item in document["ranges"])


def _records(store: CheckpointStore) -> list[str]:
    return sorted(name for name in store.files.modified(_FOLDER) if name.endswith(".json") and not name.endswith(_SKIP))
