"""Fixtures of several suites."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from dtrain.cli.ray_head import ray_environment
from tests.support.kafka import Kafka, broker_from_environment

# On a machine with other work an example may take long without anything being wrong.
settings.register_profile("dtrain", deadline=None)
settings.load_profile("dtrain")

# Ray reads its environment when it is imported: before that, every process of the tests agrees on it.
os.environ.update(ray_environment({}, token_file=Path("none")) | {"RAY_AUTH_MODE": "disabled"})


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real broker that all tests of this process share: those that kill one start their own."""
    with broker_from_environment(tmp_path_factory.mktemp("kafka") / "broker") as broker:
        kafka = Kafka(broker)
        yield kafka
        kafka.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Ray cluster that all tests of this process share."""
    from tests.support.cluster import ray_cluster  # Ray is imported where it is needed alone

    with ray_cluster(tmp_path_factory.mktemp("ray"), num_cpus=8):
        yield
