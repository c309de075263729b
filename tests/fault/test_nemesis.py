"""A live job on Ray and Kafka in a storm of faults, the broker's death among them; oracles 1 and 2 at zero."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.chaos import FAULTS, run_storm, storm
from tests.support.kafka import Kafka, broker_from_environment


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    if "KAFKA_BOOTSTRAP" in os.environ:
        pytest.skip("the broker of KAFKA_BOOTSTRAP is not ours to kill")
    with broker_from_environment(tmp_path / "broker") as broker:
        kafka = Kafka(broker)
        yield kafka
        kafka.close()


def test_storm_is_a_function_of_its_seed() -> None:
    first, again, other = (storm(seed, duration_s=600, every_s=2) for seed in (7, 7, 8))
    assert first == again != other
    assert {fault.kind for fault in first} == set(FAULTS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_live_job_under_a_fault_of_every_kind_loses_and_doubles_nothing(
    own_kafka: Kafka, cluster: Path, tmp_path: Path
) -> None:
    long = storm(8, duration_s=600, every_s=2.0)
    faults = [fault for number, fault in enumerate(long) if fault.kind not in {before.kind for before in long[:number]}]
    assert {fault.kind for fault in faults} == set(FAULTS)
    result = run_storm(own_kafka, faults=faults, traces=cluster, folder=tmp_path)
    assert result.is_sound, result
    assert sum(result.faults.values()) == len(faults)
