"""The copier: a replica's tensors into kept memory, behind the computation of the next step."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dtrain.errors import UnavailableError

Tensors = Mapping[str, Tensor]


@dataclass(slots=True)
class _Slot:
    """Kept memory, and the copy that is in it: None where nobody will ask for it any more."""

    memory: dict[str, Tensor] = field(default_factory=dict)
    copy: dict[str, Tensor] | None = None
    copying: Future[None] | None = None
    is_read: bool = False

    def place(self, name: str, like: Tensor) -> Tensor:
        """Memory on the CPU for a tensor `like` this one; pinned where that is on a GPU."""
        kept = self.memory.get(name)
        if kept is None or kept.shape != like.shape or kept.dtype != like.dtype:
            kept = self.memory[name] = torch.empty(like.shape, dtype=like.dtype, pin_memory=like.is_cuda)
        return kept


class StateCopier:
    """Copies tensors while the next step is computed: a snapshot stalls training for less time than the copy takes.

    Memory is kept, because the first touch of fresh memory takes ten times as long as a copy. There are two slots: from one a
    copy may be read (written to a store) while the next is made in the other. A copy takes the place of one that nobody has
    begun to read.

    Threads: `copy`, `reserve` and `wait` belong to the thread that changes the tensors; `reading` to any.
    """

    def __init__(self) -> None:
        self._slots = (_Slot(), _Slot())
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot")
        self._copying: Future[None] | None = None
        self._is_reserved = False

    def copy(self, now: Tensors, behind: Tensors) -> dict[str, Tensor]:
        """Begin a copy; it is complete once `reading` has been entered with it.

        Args:
            now: tensors that are copied when this returns.
            behind: tensors that must not be changed before `wait` has returned.
        """
        self._is_reserved = True  # from now on, memory holds copies
        with self._lock:
            slot = next(slot for slot in self._slots if not slot.is_read)
            copy: dict[str, Tensor] = {}
            slot.copy = copy
        self._submit(slot, copy, now).result()
        self._copying = slot.copying = self._submit(slot, copy, behind)
        return copy

    def wait(self) -> None:
        """The tensors of the last copy may be changed."""
        if self._copying is not None:
            wait([self._copying])
            self._copying = None

    def reserve(self, tensors: Tensors) -> None:
        """Memory for a first copy of `tensors` is touched in the background; called again, or behind a copy, nothing happens."""
        if not self._is_reserved:
            self._is_reserved = True
            self._thread.submit(_touch, self._slots[0], tensors)

    @contextmanager
    def reading(self, copy: Tensors) -> Iterator[None]:
        """Inside, `copy` is complete and stays as it is; afterwards it may be overwritten.

        Raises:
            UnavailableError: a later copy has taken its place.
        """
        with self._lock:
            slot = next((slot for slot in self._slots if slot.copy is copy), None)
            if slot is None or slot.copying is None:
                raise UnavailableError("a later snapshot has taken this one's place")
            slot.is_read = True
        try:
            slot.copying.result()
            yield
        finally:
            slot.copy, slot.is_read = None, False

    def _submit(self, slot: _Slot, copy: dict[str, Tensor], tensors: Tensors) -> Future[None]:
        """Copy in the background, behind what the present thread has queued on the GPU."""
        device = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
        queued = torch.cuda.current_stream(device).record_event() if device is not None else None
        return self._thread.submit(_fill, slot, copy, tensors, queued)


def _fill(slot: _Slot, copy: dict[str, Tensor], tensors: Tensors, queued: torch.cuda.Event | None) -> None:
    stream = torch.cuda.Stream() if queued is not None else None  # type: ignore[no-untyped-call]
    with torch.no_grad(), torch.cuda.stream(stream):
        if stream is not None and queued is not None:
            stream.wait_event(queued)
        for name, tensor in tensors.items():
            copy[name] = slot.place(name, tensor).copy_(tensor, non_blocking=True)
    if stream is not None:
        stream.synchronize()


def _touch(slot: _Slot, tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        slot.place(name, tensor).zero_()
