"""What a job says that it did, read from its checkpoint's files without a line of dtrain.

A manifest (JSON) names the tensors (safetensors) and the segments of the step log (JSON lines). Each line is a step with the row
ranges that it trained: `[partition, first offset, first row, end offset, end row, …]`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load_file
from torch import Tensor

from examples.messages import Message

Rows = npt.NDArray[np.int64]
"""Numbers of rows of the example's table."""


def checkpoints(folder: Path) -> dict[int, Path]:
    """Step → the newest manifest that stands there, of a job whose checkpoints are in `folder`."""
    manifests = sorted((folder / "manifests").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return {_progress(path)["step"]: path for path in manifests}


def weights(manifest: Path) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint, by their names in its `state_dict`."""
    digest = json.loads(manifest.read_text(encoding="utf-8"))["blob"]["sha256"]
    tensors = load_file(manifest.parent.parent / "blobs" / f"{digest}.safetensors")
    return {name.removeprefix("model/"): tensor for name, tensor in tensors.items() if name.startswith("model/")}


def entries(manifest: Path) -> Iterator[dict[str, Any]]:
    """Every entry of the log up to a checkpoint, data and control steps; each file is checked against its digest."""
    for segment in _progress(manifest)["segments"]:
        content = (manifest.parent.parent / "segments" / f"{segment['sha256']}.jsonl").read_bytes()
        if hashlib.sha256(content).hexdigest() != segment["sha256"]:
            raise SystemExit(f"log segment {segment['sha256'][:12]} does not match its digest")
        yield from map(json.loads, content.splitlines())


def steps(manifest: Path, places: Mapping[int, Rows]) -> list[Rows]:
    """The rows of each data step up to a checkpoint, in the order in which they were trained."""
    return [
        np.concatenate([_rows_of(item, places) for item in entry["ranges"]])
        for entry in entries(manifest)
        if entry["kind"] == "data"
    ]


def places(messages: Iterable[Message]) -> dict[int, Rows]:
    """Partition → where in the table the rows of each of its messages begin, and where the last one's end, in a fresh topic."""
    at, found = 0, list[tuple[int, int, int]]()
    for message in messages:
        found.append((message.partition, at, message.num_rows))
        at += message.num_rows
    by_partition = groupby(sorted(found), key=lambda item: item[0])
    return {partition: np.array([item[1:] for item in items]) for partition, items in by_partition}


def _rows_of(item: list[Any], places: Mapping[int, Rows]) -> Rows:
    """The rows of a range: from (offset, row) up to (offset, row), of which the latter is not in it."""
    partition, first_offset, first_row, end_offset, end_row = item[:5]
    messages = places[int(partition.rpartition(":")[2])][first_offset : end_offset + 1]
    rows = np.concatenate([np.arange(at, at + num_rows) for at, num_rows in messages])
    beyond = messages[-1][1] - end_row if len(messages) > end_offset - first_offset else 0
    return rows[first_row : len(rows) - beyond]


def _progress(manifest: Path) -> dict[str, Any]:
    progress: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))["progress"]
    return progress
