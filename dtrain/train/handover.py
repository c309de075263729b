"""Handover: a replica's state from a peer, over the generation's own group. What a checkpoint does through a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from dtrain.steplog.progress import Progress
from dtrain.steplog.tail import LogTail
from dtrain.train.state import State

_LARGE_BYTES = 2**20


class Channel(Protocol):
    """A group of the source, its rank 0, and of those who receive. Errors and blocking as `train.collective.Collective`."""

    def broadcast_(self, buffer: Tensor, *, source: int) -> None:
        """Replace `buffer` by that of rank `source`."""
        ...


def send_state(state: State, channel: Channel) -> None:
    """All other ranks of `channel` have received `state`, whose tensors nobody changes meanwhile."""
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.tensors.items()}
    header = {
        "tensors": [[name, str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()],
        "notes": dict(state.notes),
        "progress": state.progress.to_json(),
        "tail": state.tail.to_json() if state.tail is not None else None,
    }
    head = torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)
    channel.broadcast_(torch.tensor([head.numel()]), source=0)
    channel.broadcast_(head, source=0)
    small, large = _by_size(tensors)
    pieces = [torch.cat([tensor.cpu() for tensor in small])] if small else []
    for piece in (*pieces, *large):
        channel.broadcast_(piece.cpu(), source=0)


def receive_state(channel: Channel) -> State:
    """What rank 0 of `channel` has sent."""
    size = torch.zeros(1, dtype=torch.int64)
    channel.broadcast_(size, source=0)
    head = torch.empty(int(size), dtype=torch.uint8)
    channel.broadcast_(head, source=0)
    header = json.loads(bytes(head.numpy()))
    tensors = {
        name: torch.empty(shape, dtype=getattr(torch, dtype.removeprefix("torch."))) for name, dtype, shape in header["tensors"]
    }
    small, large = _by_size(tensors)
    if small:
        joined = torch.cat(small)
        channel.broadcast_(joined, source=0)
        for part, piece in zip(small, torch.split(joined, [part.numel() for part in small]), strict=True):
            part.copy_(piece)
    for piece in large:
        channel.broadcast_(piece, source=0)
    tail = LogTail.from_json(header["tail"]) if header["tail"] is not None else None
    return State(tensors, header["notes"], Progress.from_json(header["progress"]), tail)


def _by_size(tensors: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Their bytes: of small tensors, which travel in one piece, and of large ones, which are not copied for it."""
    flat = [tensor.reshape(-1).view(torch.uint8) for tensor in tensors.values() if tensor.numel()]
    return [t for t in flat if t.numel() < _LARGE_BYTES], [t for t in flat if t.numel() >= _LARGE_BYTES]
