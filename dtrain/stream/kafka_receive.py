"""kafka-python's connections, receiving what is there at once, straight into the memory of the response.

By itself it receives 4,096 bytes a call, for each of which two threads hand the interpreter to each other, and copies what came six times
before anybody reads it; and it gives up a connection whose answer is not whole in time, also while it is coming. The version bound in `pyproject.toml` and the contract suite hold this in place.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from kafka.errors import KafkaConnectionError, KafkaProtocolError
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.protocol.frame import KafkaBytes

HEAD_BYTES = 4096
"""Received at a time while it is not known how long the response is."""

BULK_BYTES = 256 << 10
"""From how much on what is missing of a response is awaited in one call, without the interpreter."""

_BULK_WAIT = struct.pack("@ll", 0, 5_000)
"""How long, as a `timeval`: 5 ms."""


class Frame(KafkaBytes):  # type: ignore[misc]
    """The memory of one response, which is filled in place and read without a copy."""

    _idx: int
    """How much has come, and then how much was read."""

    def read(self, nbytes: int | None = None) -> Any:
        """The next `nbytes`; all that are left as a view."""
        if nbytes is not None:
            return super().read(nbytes)
        start, self._idx = self._idx, len(self)
        return memoryview(self)[start:]

    @property
    def room(self) -> memoryview:
        """What has not come yet, but for the last byte: that one goes the usual way, so that the response is taken note of."""
        return memoryview(self)[self._idx : -1]


def receive_in_bulk(client: KafkaNetClient, *, on_error: Callable[[Exception | None], None]) -> None:
    """From now on the client's new connections receive so.

    Args:
        client: has no connection yet.
        on_error: told why a connection was not made or ended, which the client itself keeps for its log.
    """
    build = client._manager._build_transport

    async def build_ours(*args: Any, **options: Any) -> Any:
        try:
            transport = await build(*args, **options)
        except Exception as error:
            on_error(error)
            raise
        abort = transport.abort

        def abort_ours(error: Exception | None = None) -> None:
            on_error(error)
            abort(error)

        transport.abort = abort_ours
        transport._sock_recv = partial(_receive, transport)
        return transport

    client._manager._build_transport = build_ours


def is_receiving(client: KafkaNetClient, *, within_s: float) -> bool:
    """Whether something has come on one of the client's connections lately."""
    transports = [connection.transport for connection in list(client._manager._conns.values())]
    return any(time.monotonic() - each.last_read < within_s for each in transports if each is not None)


def _receive(transport: Any) -> tuple[bytes, Exception | None]:
    """Hand all that the socket has to the transport's protocol; nothing is left to hand over, unless it is an error."""
    protocol, has_come = transport._protocol, False
    if protocol is not None:
        protocol._request_timed_out = partial(_late, protocol)
    try:
        while transport._protocol is not None and not transport._closed:
            while room := _room(transport._protocol.parser):
                is_bulk = len(room) >= BULK_BYTES and not isinstance(transport._sock, ssl.SSLSocket)
                if not (num_bytes := (_receive_bulk if is_bulk else _receive_some)(transport._sock, room)):
                    return b"", KafkaConnectionError("socket disconnected")
                transport._protocol.parser._rbuffer._idx += num_bytes
                if is_bulk and num_bytes < len(room):
                    return b"", None  # what is slow to come keeps nobody else waiting
            if not (head := transport._sock.recv(HEAD_BYTES)):
                # What came just before the end, as a refusal does, is heard first: the end is still there the next time.
                return b"", None if has_come else KafkaConnectionError("socket disconnected")
            transport._protocol.data_received(head)
            has_come = True
    except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass
    except KafkaProtocolError as error:
        return b"", error
    except OSError as error:
        return b"", KafkaConnectionError(error)
    return b"", None


def _receive_some(sock: socket.socket, room: memoryview) -> int:
    return sock.recv_into(room)


def _receive_bulk(sock: socket.socket, room: memoryview) -> int:
    """As much of `room` as comes within some milliseconds.

    Why: whoever receives it piece by piece asks for the interpreter after each, and gets it from a thread that decodes once in 5 ms only.
    """
    sock.setblocking(True)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _BULK_WAIT)
        return sock.recv_into(room, 0, socket.MSG_WAITALL)
    finally:
        sock.setblocking(False)


def _late(connection: Any, answer: Future, sent_at_s: float, timeout_at_s: float) -> None:
    """An answer has not come in time. That ends the connection, unless something is coming: large answers take long on a slow network."""
    allowed_s = timeout_at_s - sent_at_s
    heard_at_s = connection.transport.last_read if connection.transport is not None else 0.0
    if answer.is_done or connection.closed or time.monotonic() - heard_at_s >= allowed_s:
        type(connection)._request_timed_out(connection, answer, sent_at_s, timeout_at_s)
    else:
        connection.net.call_at(heard_at_s + allowed_s, partial(_late, connection, answer, sent_at_s, timeout_at_s))


def _room(parser: Any) -> memoryview | None:
    """Where the response that is coming goes on; None between two."""
    if parser is None or not parser._receiving:
        return None
    begun = parser._rbuffer
    if not isinstance(begun, Frame):
        parser._rbuffer = Frame(len(begun))
        parser._rbuffer.write(memoryview(begun)[: begun.tell()])
    room: memoryview = parser._rbuffer.room
    return room
