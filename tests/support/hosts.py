"""Hosts on one machine: network namespaces on a bridge, whose links are cut and healed. Needs Linux, root and `ip`."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_NEW_NETWORK = 0x40000000
"""CLONE_NEWNET."""


@dataclass(frozen=True)
class Host:
    """A host beside this machine.

    Args:
        name: of its namespace.
        address: at which the others reach it.
        port: the bridge's end of its only link.
    """

    name: str
    address: str
    port: str

    @property
    def enter(self) -> tuple[str, ...]:
        """Before a command: it runs on this host."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Nothing passes its link any more, and nobody is told: connections stay open, and silent."""
        _ip("link", "set", self.port, "down")

    def heal(self) -> None:
        """Its link works again."""
        _ip("link", "set", self.port, "up")

    @contextmanager
    def reaches(self, port: int) -> Iterator[None]:
        """Its 127.0.0.1:`port` is that of this machine: another way than its link, which is not cut with it."""
        listener: list[socket.socket] = []
        entering = threading.Thread(target=lambda: listener.append(self._listen(port)))
        entering.start()  # a namespace belongs to a thread, and a socket to the namespace that it was made in
        entering.join()
        over = threading.Event()
        relaying = threading.Thread(target=lambda: asyncio.run(_serve(listener[0], port, over)))
        relaying.start()
        try:
            yield
        finally:
            over.set()
            relaying.join()

    def _listen(self, port: int) -> socket.socket:
        with open(f"/run/netns/{self.name}", "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), f"the namespace {self.name} cannot be entered")
        return socket.create_server(("127.0.0.1", port))


class Network:
    """This machine and hosts of its own, at addresses that are kept for tests of networks (RFC 2544)."""

    def __init__(self) -> None:
        self._name = f"dt{os.getpid()}"
        self._prefix = f"198.18.{os.getpid() % 256}"
        self._hosts: list[Host] = []
        self.address = f"{self._prefix}.1"
        """Of this machine."""

    @staticmethod
    def missing() -> str:
        """What this machine lacks for it; nothing where it can be had."""
        if shutil.which("ip") is None:
            return "there is no `ip`"
        if os.geteuid() != 0:
            return "only root makes network namespaces"
        probe = f"dt{os.getpid()}probe"
        made = subprocess.run(("ip", "netns", "add", probe), capture_output=True, text=True, check=False)
        subprocess.run(("ip", "netns", "del", probe), capture_output=True, check=False)
        return made.stderr.strip()

    def __enter__(self) -> Network:
        _ip("link", "add", self._name, "type", "bridge")
        _ip("address", "add", f"{self.address}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        return self

    def new_host(self) -> Host:
        """A host that reaches this machine and the others, and nothing else."""
        number = len(self._hosts) + 2
        host = Host(f"{self._name}-{number}", f"{self._prefix}.{number}", f"{self._name}-{number}")
        self._hosts.append(host)
        _ip("netns", "add", host.name)
        _ip("link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        _ip("link", "set", host.port, "master", self._name, "up")
        for link in ("lo", "eth0"):
            _ip("-n", host.name, "link", "set", link, "up")
        _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
        return host

    def __exit__(self, *_: object) -> None:
        """All that was made is gone, each by its name; processes on the hosts lose their links."""
        for host in self._hosts:
            with suppress(subprocess.CalledProcessError):
                _ip("link", "del", host.port)
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", host.name)
        _ip("link", "del", self._name)


def _ip(*words: str) -> None:
    subprocess.run(("ip", *words), check=True, capture_output=True)


async def _serve(listener: socket.socket, port: int, over: threading.Event) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        with suppress(asyncio.CancelledError):  # all end with the loop
            await asyncio.gather(_pour(reader, back), _pour(there, writer))

    server = await asyncio.start_server(relay, sock=listener)
    await asyncio.to_thread(over.wait)
    server.close()


async def _pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()
    sink.close()
