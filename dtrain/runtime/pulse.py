"""The pulse: a trainer's signs of life, by a plain socket and a thread of its own.

A process that dies closes its socket, which is heard at once; one that is frozen falls silent, and its lease runs out.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass

from dtrain.clock import Clock
from dtrain.policy.lease import Leases, Phase, Place

BEATS_A_LEASE = 8
_TICKS_A_LEASE = 20
_LONGEST_BEAT = 4096


@dataclass(frozen=True, slots=True)
class PulseTerms:
    """Where a trainer sends its signs of life.

    Args:
        host: of the coordinator.
        port: of its listener.
        token: proves that the trainer is of this job.
        member: its number.
        every_s: time between two.
    """

    host: str
    port: int
    token: str
    member: int
    every_s: float


@dataclass(frozen=True, slots=True)
class Beat:
    """What a sign of life says.

    Args:
        phase: what the training thread does.
        plan_number: of the step that it computes; 0 between steps.
        row_s: seconds that it takes for a row, lately; 0 where it is not known.
        is_leaving: the process was asked to end.
    """

    phase: Phase
    plan_number: int
    row_s: float
    is_leaving: bool = False


class Pulse:
    """Says how the training thread is, until it is stopped; over a new connection where one broke.

    Args:
        terms: where to.
        beat: asked each time; must not block.
    """

    def __init__(self, terms: PulseTerms, beat: Callable[[], Beat]) -> None:
        self._terms = terms
        self._beat = beat
        self._is_over = threading.Event()
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def stop(self) -> None:
        """No further sign of life."""
        self._is_over.set()

    def _run(self) -> None:
        while not self._is_over.is_set():
            with suppress(OSError):
                self._speak()
            self._is_over.wait(self._terms.every_s)

    def _speak(self) -> None:
        terms = self._terms
        with socket.create_connection((terms.host, terms.port), timeout=10.0) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_line({"token": terms.token, "member": terms.member}))
            while not self._is_over.is_set():
                connection.sendall(_line(asdict(self._beat())))
                self._is_over.wait(terms.every_s)


class PulseListener:
    """Hears the trainers of a job. All on the coordinator's event loop.

    Args:
        lease_s: how long a trainer may be silent.
        clock: monotonic.
        on_silent: called with (member, why, whether its process ended) when a socket was closed, or a lease has run out.
        on_leaving: called with a member whose process was asked to end; more than once.
    """

    def __init__(
        self,
        *,
        lease_s: float,
        clock: Clock,
        on_silent: Callable[[int, str, bool], None],
        on_leaving: Callable[[int], None],
    ) -> None:
        self._clock = clock
        self._on_silent = on_silent
        self._on_leaving = on_leaving
        self._token = secrets.token_hex(16)
        self._every_s = lease_s / BEATS_A_LEASE
        self._tick_s = lease_s / _TICKS_A_LEASE
        self._leases = Leases(lease_s, self._tick_s)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._is_closed = False
        self._ticking: asyncio.Task[None] | None = None
        self.places: dict[int, Place] = {}
        self.row_s: dict[int, float] = {}
        """Member → seconds that it takes for a row, lately; 0 where it is not known."""

    async def open(self, host: str) -> None:
        """Listen on `host`, at a free port."""
        self._server = await asyncio.start_server(self._hear, host, 0, limit=_LONGEST_BEAT)
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    def terms(self, member: int) -> PulseTerms:
        """What `member` needs to be heard."""
        if self._server is None:
            raise RuntimeError("open the listener first")
        host, port = self._server.sockets[0].getsockname()[:2]
        return PulseTerms(host, port, self._token, member, self._every_s)

    def forget(self, member: int) -> None:
        """Nothing is expected of `member` any more."""
        self._leases.forget(member)
        self.places.pop(member, None)
        self.row_s.pop(member, None)

    def close(self) -> None:
        """Hear nobody any more, and say nothing of anybody."""
        self._is_closed = True
        if self._ticking is not None:
            self._ticking.cancel()
        if self._server is not None:
            self._server.close()
        for connection in self._connections:  # a server that closes leaves those open that it has accepted
            connection.close()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        member, has_ended = None, False
        self._connections.add(writer)
        try:
            hello = json.loads(await asyncio.wait_for(reader.readline(), 10.0))
            if not hmac.compare_digest(hello["token"], self._token):
                return
            member = int(hello["member"])
            while line := await reader.readline():
                self._hear_beat(member, Beat(**json.loads(line)))
            has_ended = True  # its end closed the connection
        except (OSError, ValueError, KeyError, TypeError, TimeoutError):
            pass  # a stranger; or the connection broke, and the member, if it lives, comes again within its lease
        finally:
            self._connections.discard(writer)
            writer.close()
            if has_ended and member in self.places and not self._is_closed:
                self._on_silent(member, "its process has ended", True)

    def _hear_beat(self, member: int, beat: Beat) -> None:
        now_s = self._clock.monotonic_s()
        self._leases.hear(member, now_s=now_s)
        phase, known = Phase(beat.phase), self.places.get(member)
        if known is None or (known.phase, known.plan_number) != (phase, beat.plan_number):
            self.places[member] = Place(phase, beat.plan_number, now_s)
        self.row_s[member] = beat.row_s
        if beat.is_leaving:
            self._on_leaving(member)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            for member in self._leases.expired(now_s=self._clock.monotonic_s()):
                place = self.places.get(member)
                doing = f"; at plan {place.plan_number} it {place.phase.value}" if place else ""
                self._leases.forget(member)
                self._on_silent(member, f"it has been silent for {self._leases.lease_s:g} s{doing}", False)


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value).encode() + b"\n"
