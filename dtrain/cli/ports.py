"""Ports: free ones for servers that are started later, or again; and whether somebody answers at one."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress

from dtrain.errors import UnavailableError

_LOWEST, _HIGHEST = 20_000, 32_000
"""Below those that the kernel hands out to whoever connects meanwhile."""

_SHARES = 16
"""Processes that look at the same time look at different ports, mostly: nobody listens yet where somebody soon will."""

_given: set[int] = set()
"""What this process has handed out: for the same reason, each port once."""


def free_ports(count: int, *, address: str = "127.0.0.1") -> list[int]:
    """Different ports that nobody listens on now; a process gets none of them twice.

    Raises:
        UnavailableError: there are not so many.
    """
    share = range(_LOWEST + os.getpid() % _SHARES, _HIGHEST, _SHARES)
    found: list[int] = []
    for port in random.sample(share, len(share)):
        with socket.socket() as probe, suppress(OSError):
            if port not in _given:
                probe.bind((address, port))
                found.append(port)
        if len(found) == count:
            _given.update(found)
            return found
    raise UnavailableError("no free ports between 20000 and 32000", fix="end the processes that hold them")


def answers(address: str) -> bool:
    """Somebody accepts connections at `address`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False
