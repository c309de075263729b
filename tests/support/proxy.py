"""A network that can be made bad: a TCP proxy that delays, throttles, cuts and holds what passes through it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.kafka.broker import Broker, Listener
from deploy.kafka.jars import resolve_jars
from tests.support.kafka import REPOSITORY, Kafka


class Proxy:
    """Passes connections on to `upstream`. What is set on it counts from the next piece on, for connections that are there too.

    Attributes:
        address: its own, host:port.
        upstream: host:port; empty while there is nothing to pass on to.
        delay_s: how long each piece is held.
        bytes_a_s: how much passes of each direction of each connection; 0 for any.
        is_black: nothing passes, in either direction, and nobody is told.
        num_accepted: connections that were made so far.
        num_bytes: what has passed, in both directions.
    """

    def __init__(self) -> None:
        self.upstream = ""
        self.delay_s = 0.0
        self.bytes_a_s = 0
        self.is_black = False
        self.num_accepted = 0
        self.num_bytes = 0
        self._links: list[Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Every connection is cut, as by a router that has forgotten it: both ends get RST."""
        links, self._links = self._links, []
        for link in links:
            link.reset()

    def half_open(self) -> None:
        """Nothing passes any more on the connections that are there, and nobody is told; new ones are well."""
        for link in self._links:
            link.is_dead = True

    def close(self) -> None:
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.num_accepted += 1
            try:
                host, _, port = self.upstream.rpartition(":")
                far = socket.create_connection((host, int(port)), timeout=5)
            except (OSError, ValueError):
                near.close()
                continue
            far.settimeout(None)
            self._links.append(Link(self, near, far))


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, near: socket.socket, far: socket.socket) -> None:
        self._proxy = proxy
        self._ends = (near, far)
        self.is_dead = False
        for source, target in (self._ends, self._ends[::-1]):
            threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def reset(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        proxy, due_s = self._proxy, 0.0
        with contextlib.suppress(OSError):
            while piece := source.recv(max(proxy.bytes_a_s // 20, 1) if proxy.bytes_a_s else 65536):
                if proxy.bytes_a_s:  # by the clock: on a busy machine each sleep lasts too long
                    due_s = max(due_s, time.monotonic() - 0.5) + len(piece) / proxy.bytes_a_s
                time.sleep(max(0.0, due_s - time.monotonic()) + proxy.delay_s)
                while (self.is_dead or proxy.is_black) and source.fileno() >= 0:
                    time.sleep(0.01)
                target.sendall(piece)
                proxy.num_bytes += len(piece)
        if not self.is_dead:
            self._close()

    def _close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # wakes whoever receives, and sends nothing
            end.close()


@dataclass(frozen=True)
class Behind:
    """A broker, reached well by `kafka` and badly through `proxy`, to which it sends all who came that way."""

    broker: Broker
    kafka: Kafka
    proxy: Proxy


@contextmanager
def broker_behind_a_proxy(folder: Path) -> Iterator[Behind]:
    proxy = Proxy()
    listeners = {"PROXIED": Listener("PLAINTEXT", advertised=proxy.address)}
    with Broker.start(folder, libs=resolve_jars(REPOSITORY / "build" / "kafka"), listeners=listeners) as broker:
        proxy.upstream = broker.addresses["PROXIED"]
        kafka = Kafka(broker)
        yield Behind(broker, kafka, proxy)
        kafka.close()
    proxy.close()
