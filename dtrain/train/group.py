"""torch.distributed: a private group of ranks for one generation. The only file that imports it.

No global process group exists: a generation's group has its own store, prefix and sockets, and nothing of it outlives it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from dtrain.errors import CollectiveError, UnavailableError

_SLICE = timedelta(milliseconds=10)  # how soon a waiting rank hears that it was abandoned
_POLL_S = 0.0002


class Rendezvous:
    """The key-value store through which the ranks of generations find each other; lives with one member.

    Args:
        address: on which to listen; the member's own address.
    """

    def __init__(self, address: str) -> None:
        self._store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
        self.address = address
        self.port: int = self._store.port


@dataclass(frozen=True, slots=True)
class GroupTerms:
    """What the ranks of a generation agree on before they form.

    Args:
        prefix: of all keys in the store; fresh for every generation.
        host: of the store.
        port: of the store.
        rank: of this member.
        world_size: how many members.
        backend: gloo or nccl.
        timeout_s: after which forming, or an operation that nobody ended, fails.
        address: of this member, as the others reach it. Gloo by itself takes what the host's name resolves to, often loopback.
    """

    prefix: str
    host: str
    port: int
    rank: int
    world_size: int
    backend: str = "gloo"
    timeout_s: float = 60.0
    address: str = "127.0.0.1"


class TorchCollective:
    """A formed group."""

    def __init__(self, terms: GroupTerms) -> None:
        self.rank = terms.rank
        self.world_size = terms.world_size
        self._is_nccl = terms.backend == "nccl"
        self._is_abandoned = threading.Event()
        self._group = _form(terms)
        self.waited_s = 0.0
        self.is_waiting = False
        """A collective is under way: this rank waits for the others."""

    def all_reduce_(self, buffer: Tensor) -> None:
        """Replace `buffer` by its sum over all ranks; see `Collective`."""
        self._do(buffer, lambda group: group.allreduce([buffer]))

    def warm_up(self) -> None:
        """Each operation has run once, so that the next first one takes no longer than any other."""
        self.all_reduce_(torch.zeros(1))
        self.broadcast_(torch.zeros(1), source=0)
        self._group = None

    def broadcast_(self, buffer: Tensor, *, source: int) -> None:
        """Replace `buffer` by that of rank `source`. Collective, blocking and errors as `all_reduce_`."""
        options = dist.BroadcastOptions()
        options.rootRank = source
        self._do(buffer, lambda group: group.broadcast([buffer], options))

    def _do(self, buffer: Tensor, begin: Callable[[Any], Any]) -> None:
        if self._is_abandoned.is_set():
            raise CollectiveError("the generation has ended")
        self.is_waiting, began_s = True, time.perf_counter()
        try:
            work = begin(self._group)
            while not self._has_come(work):
                if self._is_abandoned.is_set():
                    self._leave(work, buffer)
                    raise CollectiveError("the generation ended during a collective")
        except RuntimeError as error:
            raise self._lost(error) from error
        finally:
            self.is_waiting = False
            self.waited_s += time.perf_counter() - began_s

    def _has_come(self, work: Any) -> bool:
        """Whether the operation is complete, after at most a slice of waiting."""
        try:
            if self._is_nccl and not work.is_completed():  # its `wait` would order streams, and not wait at all
                time.sleep(_POLL_S)
                return False
            work.wait(_SLICE)
        except RuntimeError:
            if not work.is_completed():
                return False
            work.wait(_SLICE)  # it may have come right behind the timeout
        return True

    def _leave(self, work: Any, buffer: Tensor) -> None:
        """End an operation in flight: NCCL can abort it, gloo's must come to its own end."""
        if self._is_nccl:
            self._group.abort()
        else:
            _park(work, self._group, buffer)
        self._group = None

    def abandon(self) -> None:
        """End the group for this rank."""
        self._is_abandoned.set()

    def _lost(self, error: RuntimeError) -> CollectiveError:
        self._is_abandoned.set()
        self._group = None  # closes its sockets: that is what wakes the ranks that were not our neighbours
        return CollectiveError(f"a rank was lost: {str(error).splitlines()[0][:200]}")


def _form(terms: GroupTerms) -> Any:
    timeout = timedelta(seconds=terms.timeout_s)
    try:
        store = TCPStore(terms.host, terms.port, is_master=False, wait_for_workers=False, timeout=timeout)
        keys = PrefixStore(terms.prefix, store)
        if terms.backend == "nccl":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            return dist.ProcessGroupNCCL(keys, terms.rank, terms.world_size, options)
        gloo = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        gloo._timeout, gloo._threads = timeout, 2
        gloo._devices = [dist.ProcessGroupGloo.create_device(hostname=terms.address)]
        return dist.ProcessGroupGloo(keys, terms.rank, terms.world_size, gloo)
    except (RuntimeError, dist.DistError) as error:
        raise UnavailableError(f"could not form the group {terms.prefix}: {str(error).splitlines()[0][:200]}") from error


def _park(work: Any, group: Any, buffer: Tensor) -> None:
    """Let an operation in flight come to its end in a thread of its own: dropping its group would block until then."""

    def wait() -> None:
        with suppress(RuntimeError):  # its generation is over: nobody wants the result
            work.wait()
        _ = (group, buffer)

    threading.Thread(target=wait, name="parked-collective", daemon=True).start()
