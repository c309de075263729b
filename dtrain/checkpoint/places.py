"""Places: where a job's checkpoints are, by a path or a URL."""

from __future__ import annotations

from pathlib import Path

from dtrain.checkpoint.files import Files, LocalFiles
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import InputError


def open_store(place: str | Path) -> CheckpointStore:
    """The checkpoints of one job at `place`, as `CheckpointSpec.place_of` names it: a folder, or a URL of an object store.

    Raises:
        InputError: what the URL needs is not installed.
    """
    return CheckpointStore(_files(str(place)))


def _files(place: str) -> Files:
    if "://" not in place:
        return LocalFiles(Path(place))
    try:
        from dtrain.checkpoint.objects import ObjectFiles
    except ModuleNotFoundError as error:
        raise InputError(f"{place} needs obstore, which is not installed", fix="pip install 'dtrain[objects]'") from error
    return ObjectFiles.open(place)
