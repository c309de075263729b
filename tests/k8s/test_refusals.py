"""What cannot be meant, or the cluster has not, is said by each Helm before anything is made."""

from __future__ import annotations

import re

import pytest

from tests.k8s.cluster import Cluster
from tests.k8s.refusals import LACKING, WRONG
from tests.k8s.releases import HELMS, Release


@pytest.fixture(scope="module", params=HELMS)
def place(cluster: Cluster, request: pytest.FixtureRequest) -> Release:
    """Where nothing is ever installed."""
    return Release(cluster, request.param, f"refused-{request.param}")


@pytest.mark.parametrize(("text", "said"), [*WRONG, *LACKING])
def test_install_is_refused_by_name(place: Release, text: str, said: str) -> None:
    assert re.search(said, place.refused(f"--set={text}"))


def test_upgrade_is_refused_and_the_release_stays(release: Release) -> None:
    release.install()
    before = release.pods().keys()
    assert "typo" in release.helm("upgrade", "r", release.chart, "--set=typo=1").err
    assert "needs KubeRay" in release.helm("upgrade", "r", release.chart, "--set=ray.mode=raycluster").err
    assert release.pods().keys() == before
