"""Commit: what happens, in which order, when a checkpoint becomes the truth."""

from __future__ import annotations

from collections.abc import Callable

from dtrain.checkpoint.attempts import is_fenced
from dtrain.checkpoint.manifest import Manifest
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import FencedError, StateError, StorageError


def commit(
    store: CheckpointStore, *, manifest: Manifest, keep: int, before: Callable[[], None], after: Callable[[], None]
) -> StorageError | StateError | None:
    """The checkpoint is durable and counts, and what follows from it was done (invariant 13).

    Delivery: every part may be repeated: after an error the same call may be made again, `before` and `after` included.

    Args:
        store: the job's; the blob and the segments are in it already.
        manifest: of the attempt that commits.
        keep: how many checkpoints are left afterwards, >= 2.
        before: flushes what must be outside before the manifest is: dead letters.
        after: what may only follow it: commits to Kafka, publishing.

    Returns:
        Why old checkpoints could not be deleted, if so: room for a warning, while the new one stands.

    Raises:
        FencedError: a later attempt owns the job. The manifest may count or not; nothing followed from it that had not
            followed by then.
        StorageError: the manifest may not be durable, and nothing followed from it.
    """
    before()
    store.put_manifest(manifest)
    _check_owner(store, manifest)
    after()
    try:
        _check_owner(store, manifest)
        store.keep(keep)
    except FencedError:
        raise
    except (
        StorageError,
        StateError,
    ) as error:  # StateError: one that does not count is another dtrain's, nobody knows what it needs
        return error
    return None


def _check_owner(store: CheckpointStore, manifest: Manifest) -> None:
    if is_fenced(store, manifest.ref.attempt):
        raise FencedError(f"a later attempt owns the job; checkpoint {manifest.name} has no further effect")
