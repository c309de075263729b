"""Signs of life over real sockets: an end is heard at once, a broken connection is none, and a closed listener says nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable

from dtrain.clock import SystemClock
from dtrain.policy.lease import Phase
from dtrain.runtime.pulse import Beat, Pulse, PulseListener

LEASE_S = 30.0
"""Longer than a test."""


class Ears:
    """A listener, and whom it has found silent."""

    def __init__(self, *, lease_s: float = LEASE_S) -> None:
        self.silent: list[tuple[int, bool]] = []
        self.listener = PulseListener(
            lease_s=lease_s,
            clock=SystemClock(),
            on_silent=lambda m, _, end: self.silent.append((m, end)),
            on_leaving=lambda _: None,
        )

    async def hear_a_pulse(self) -> Pulse:
        await self.listener.open("127.0.0.1")
        pulse = Pulse(self.listener.terms(7), lambda: Beat(Phase.IDLE, 0, 0.0))
        await until(lambda: 7 in self.listener.places)
        return pulse


async def until(is_true: Callable[[], object]) -> None:
    async with asyncio.timeout(60.0):
        while not is_true():
            await asyncio.sleep(0.01)


def test_listener_that_is_closed_hangs_up_and_tells_nobody_of_an_end() -> None:
    async def main() -> None:
        ears = Ears(lease_s=1.0)
        pulse = await ears.hear_a_pulse()
        ears.listener.close()
        await until(lambda: not ears.listener._connections)
        pulse.stop()
        assert ears.silent == []

    asyncio.run(main())


def test_process_that_ends_is_heard_at_once() -> None:
    async def main() -> None:
        ears = Ears()
        (await ears.hear_a_pulse()).stop()
        await until(lambda: ears.silent)
        assert ears.silent == [(7, True)]
        ears.listener.close()

    asyncio.run(main())


def test_connection_that_is_reset_is_no_end_of_its_process() -> None:
    async def main() -> None:
        ears = Ears()
        await ears.listener.open("127.0.0.1")
        terms = ears.listener.terms(7)
        with socket.create_connection((terms.host, terms.port)) as connection:
            for line in ({"token": terms.token, "member": 7}, {"phase": Phase.IDLE, "plan_number": 0, "row_s": 0.0}):
                connection.sendall(json.dumps(line).encode() + b"\n")
            await until(lambda: 7 in ears.listener.places)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: not ears.listener._connections)
        assert ears.silent == []
        ears.listener.close()

    asyncio.run(main())


def test_pulse_whose_connection_broke_comes_again() -> None:
    async def main() -> None:
        ears = Ears(lease_s=2.0)
        pulse = await ears.hear_a_pulse()
        (connection,) = ears.listener._connections
        connection.transport.abort()
        await until(lambda: ears.listener._connections - {connection})
        pulse.stop()
        ears.listener.close()

    asyncio.run(main())
