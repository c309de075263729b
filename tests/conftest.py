"""Fixtures of several suites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.kafka import Kafka, broker_from_environment

# On a machine with other work an example may take long without anything being wrong.
settings.register_profile("dtrain", deadline=None)
settings.load_profile("dtrain")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real broker that all tests of this process share: those that kill one start their own."""
    with broker_from_environment(tmp_path_factory.mktemp("kafka") / "broker") as broker:
        kafka = Kafka(broker)
        yield kafka
        kafka.close()
