"""What a snapshot leaves in a store that has no room for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import StorageError
from dtrain.snapshot import write_snapshot
from dtrain.train.state import State
from tests.support.checkpoints import BEGIN, next_entries
from tests.support.faulty_files import HookedFiles


def test_snapshot_whose_blob_has_no_room_leaves_no_segment_behind(tmp_path: Path) -> None:
    def hook(operation: str, name: str) -> None:
        if operation == "put" and name.startswith("blobs/"):
            raise StorageError("no space left")

    store, tail, progress = CheckpointStore(HookedFiles(tmp_path, hook)), next_entries(BEGIN), BEGIN
    for entry in tail:
        progress = progress.apply(entry)
    with pytest.raises(StorageError):
        write_snapshot(store, State({"model/w": torch.zeros(3)}, {}, progress), tail, {})
    assert store.files.modified("segments") == {}
