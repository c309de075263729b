"""Ports for servers that are started later."""

from __future__ import annotations

import multiprocessing

import pytest

from dtrain.cli.ports import free_ports
from dtrain.errors import UnavailableError


def test_ports_are_given_once() -> None:
    given = [port for _ in range(20) for port in free_ports(3)]
    assert len(set(given)) == len(given)
    assert all(20_000 <= port < 32_000 for port in given)


def test_processes_that_look_at_the_same_time_get_different_ports() -> None:
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        first, second = pool.map(free_ports, [300, 300], chunksize=1)
    assert not set(first) & set(second)


def test_more_ports_than_there_are_is_said() -> None:
    with pytest.raises(UnavailableError, match="no free ports"):
        free_ports(100_000)
