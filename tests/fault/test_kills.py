"""Seeded kills of a whole job; oracles 1 and 2 at zero."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.campaign import run_campaign
from tests.support.kafka import Kafka


@pytest.mark.timeout(300)
def test_job_killed_twenty_times_loses_and_doubles_nothing(kafka: Kafka, tmp_path: Path) -> None:
    campaign = run_campaign(kafka, kills=20, seed=7, folder=tmp_path / "job", num_ids=60_000)
    assert campaign.kills >= 10
    assert (campaign.lost, campaign.doubled) == (0, 0)
