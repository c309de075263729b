"""The examples, each in a short form by the runner that users call: a worker is killed on the way, which changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from rich.console import Console

from examples.example import NAMES
from examples.result import TOLERANCE
from examples.run import Place, place
from tests.support.kafka import Kafka

STEPS = 40
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Where all of them run, on the tests' broker. Its Ray is its own, and knows nothing of how the tests' is set up."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DTRAIN_", "RAY_"))]:
            patch.delenv(name)
        patch.setenv("KAFKA_BOOTSTRAP", kafka.bootstrap)
        with place(tmp_path_factory.mktemp("examples"), console=Console(quiet=True)) as found:
            yield found


@pytest.mark.parametrize("name", NAMES)
def test_example_with_a_worker_killed_is_the_plain_loop(name: str, here: Place) -> None:
    result = here.run(name, num_steps=STEPS, kills=True)
    assert result.num_recoveries >= 1
    assert result.is_once
    assert result.steps == result.compared_steps == STEPS
    assert result.difference <= TOLERANCE
    assert result.score == pytest.approx(result.score_loop, abs=2e-3)
    assert result.loss == pytest.approx(result.loss_loop, rel=1e-4)
    assert result.is_equal_to_the_bit
    written = json.loads((here.folder / name / "result.json").read_text())
    assert (written["name"], written["holds"]) == (name, True)
