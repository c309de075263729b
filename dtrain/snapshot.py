"""Snapshots: a replica's state in a checkpoint store.

Joins `train`, which knows no stores, and `checkpoint`, which knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dtrain.checkpoint.manifest import Blob, Snapshot
from dtrain.checkpoint.store import CheckpointStore
from dtrain.checkpoint.tensors import Array, decode, encode
from dtrain.steplog.entries import Entry
from dtrain.steplog.progress import Progress
from dtrain.train.state import State

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


def write_snapshot(store: CheckpointStore, state: State, tail: Sequence[Entry], numerics: Mapping[str, str]) -> Snapshot:
    """Blob and log segment are durable. They are content-addressed: to write them twice is harmless.

    The blob is first: the larger one, so that where there is no room for it each try leaves no segment behind, longer each time.

    Raises:
        StorageError: the store cannot be written; nothing counts on what was.
    """
    blob = store.put_blob(*encode_state(state))
    progress = state.progress.seal(store.put_segment(tail)) if tail else state.progress
    return Snapshot(progress, blob, numerics)


def encode_state(state: State) -> list[bytes | memoryview]:
    """A state's tensors and notes as the bytes of a blob, in parts: equal states give equal bytes."""
    return encode({name: _to_array(tensor) for name, tensor in state.tensors.items()}, state.notes)


def read_state(store: CheckpointStore, *, blob: Blob, progress: Progress) -> State:
    """The state that a manifest names.

    Raises:
        CorruptError: the blob is not what was written.
    """
    arrays, notes = decode(store.read_blob(blob))
    return State({name: _to_tensor(array) for name, array in arrays.items()}, notes, progress)


def _to_array(tensor: Tensor) -> Array:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return Array(_NAMES[tensor.dtype], tuple(tensor.shape), flat.numpy().data)


def _to_tensor(array: Array) -> Tensor:
    if not len(array.data):
        return torch.empty(array.shape, dtype=_TYPES[array.dtype])
    return torch.frombuffer(bytearray(array.data), dtype=_TYPES[array.dtype]).reshape(array.shape)
