"""What `tests/k8s/tools.sh` and `binaries.sh` have brought; a rendering Helm; one cluster for all tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count

import pytest

from tests.k8s.cluster import Cluster
from tests.k8s.commands import BINARIES, BUILT

FETCHED = BUILT / "python"
if not FETCHED.is_dir():
    pytest.exit("nothing is fetched: run `make test-k8s`, or tests/k8s/tools.sh", returncode=1)
sys.path.append(str(FETCHED))  # behind our own environment, of which nothing may change

from tests.k8s.releases import HELMS, Release  # noqa: E402  (reads what was fetched)

_numbers = count(1)


@pytest.fixture(scope="session")
def built() -> None:
    """The binaries are there."""
    if not (BINARIES / ".built").exists():
        pytest.skip("its binaries are not built: there is no Go, or an old one (tests/k8s/binaries.sh says which it needs)")


@pytest.fixture(scope="session")
def cluster(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(params=HELMS)
def release(cluster: Cluster, request: pytest.FixtureRequest) -> Release:
    """Not installed yet; by each Helm."""
    return Release(cluster, request.param, f"n{next(_numbers)}")


@pytest.fixture
def release_by_helm4(cluster: Cluster) -> Release:
    """Not installed yet."""
    return Release(cluster, "helm4", f"n{next(_numbers)}")
