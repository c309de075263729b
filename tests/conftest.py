"""Fixtures of several suites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kafka import Kafka, broker_from_environment


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real broker that all tests of this process share: those that kill one start their own."""
    with broker_from_environment(tmp_path_factory.mktemp("kafka") / "broker") as broker:
        kafka = Kafka(broker)
        yield kafka
        kafka.close()
