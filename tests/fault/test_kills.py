"""Seeded kills of a whole job; oracles 1 and 2 at zero."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.campaign import run_campaign
from tests.support.kafka import Kafka


@pytest.mark.slow
def test_job_killed_twenty_times_loses_and_doubles_nothing(kafka: Kafka, tmp_path: Path) -> None:
    campaign = run_campaign(kafka, kills=20, seed=7, folder=tmp_path / "job", num_ids=20_000)
    assert campaign.kills == 20
    assert (campaign.lost, campaign.doubled) == (0, 0)


@pytest.mark.slow
def test_job_that_shuffles_and_is_killed_in_the_middle_of_its_spans_loses_and_doubles_nothing(
    kafka: Kafka, tmp_path: Path
) -> None:
    """A span is a fifth of the stream: nearly every life begins and ends in the middle of one."""
    campaign = run_campaign(kafka, kills=5, seed=11, folder=tmp_path / "job", num_ids=24_000, shuffle_rows=4_800)
    assert campaign.kills == 5
    assert (campaign.lost, campaign.doubled) == (0, 0)
