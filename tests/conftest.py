"""Fixtures of several suites."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dtrain.cli.ray_head import ray_environment
from tests.support.kafka import Kafka, broker_from_environment
from tests.support.packages import INDEX
from tests.support.scheduling import LongestFirst, place

# On a machine with other work an example may take long without anything being wrong; what CI tries is the same each time.
settings.register_profile("dtrain", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ)
settings.load_profile("dtrain")

# A shell that starts us in the background lets us, and all that we start, ignore Ctrl-C: what is tested must not.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray reads its environment when it is imported: before that, every process of the tests agrees on it.
os.environ.update(ray_environment({}, token_file=Path("none")) | {"RAY_AUTH_MODE": "disabled"})

# What jobs require comes from a folder: the processes that install it inherit this.
os.environ["UV_DEFAULT_INDEX"] = INDEX.as_uri()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: what is left for the end, when some processes have nothing to do, is short."""
    items.sort(key=lambda item: place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadfile` is ours."""
    return LongestFirst(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real broker that all tests of this process share: those that kill one start their own."""
    with broker_from_environment(tmp_path_factory.mktemp("kafka") / "broker") as broker:
        kafka = Kafka(broker)
        yield kafka
        kafka.close()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real Ray cluster that all tests of this process share: the folder of its trainers' traces."""
    from tests.support.cluster import ray_cluster  # Ray is imported where it is needed alone

    with ray_cluster(tmp_path_factory.mktemp("ray"), num_cpus=8) as traces:
        yield traces
