"""Free ports for servers that are started later, or again."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

from dtrain.errors import UnavailableError


def free_ports(count: int, *, address: str = "127.0.0.1") -> list[int]:
    """Different ports that nobody listens on now; below those that the kernel hands out to whoever connects meanwhile.

    Raises:
        UnavailableError: there are not so many.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((address, port))
            found.append(port)
        if len(found) == count:
            return found
    raise UnavailableError("no free ports between 20000 and 32000", fix="end the processes that hold them")
