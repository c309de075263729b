"""What is large is received in one call, and what is slow to come holds nobody up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from dtrain.stream.kafka_receive import BULK_BYTES, _receive_bulk

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_what_comes_in_pieces_is_received_in_one_call(pair: Pair) -> None:
    ours, theirs = pair
    sent = bytes(range(256)) * (BULK_BYTES // 256)
    sender = threading.Thread(target=theirs.sendall, args=(sent,))  # more than the socket holds: it goes on while we receive
    room = bytearray(len(sent))
    sender.start()
    at = 0
    while at < len(sent):  # on a busy machine the sender may be late
        try:
            at += _receive_bulk(ours, memoryview(room)[at:])
        except BlockingIOError:
            continue
    sender.join()
    assert room == sent


def test_what_does_not_come_is_not_waited_for(pair: Pair) -> None:
    ours, theirs = pair
    room = memoryview(bytearray(BULK_BYTES))
    with pytest.raises(BlockingIOError):
        _receive_bulk(ours, room)
    theirs.sendall(b"some")
    assert (_receive_bulk(ours, room), bytes(room[:4])) == (4, b"some")
    theirs.close()
    assert _receive_bulk(ours, room) == 0


def test_the_socket_waits_for_nothing_afterwards(pair: Pair) -> None:
    ours, theirs = pair
    theirs.sendall(b"some")
    _receive_bulk(ours, memoryview(bytearray(BULK_BYTES)))
    assert not ours.getblocking()
    with pytest.raises(BlockingIOError):
        ours.recv(1)
