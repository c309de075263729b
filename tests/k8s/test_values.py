"""Each file of `ci/` on a real API server that knows KubeRay's and the Prometheus operator's kinds. Their operators don't run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.k8s.cluster import Cluster
from tests.k8s.commands import DEFINITIONS, WITH_OTHERS
from tests.k8s.helm import CI_VALUES
from tests.k8s.releases import HELMS, Release, warnings

VALUES = pytest.mark.parametrize("values", CI_VALUES, ids=[file.stem for file in CI_VALUES])
_numbers = iter(range(100))


@pytest.fixture(scope="module", autouse=True)
def kinds(cluster: Cluster) -> Iterator[None]:
    """For these tests alone: others see that they are not there."""
    files = [f"--filename={file}" for file in sorted(DEFINITIONS.iterdir())]
    cluster.kubectl("create", *files)  # not `apply`, which would write all of it into an annotation
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *files)
    yield
    cluster.kubectl("delete", "--wait", *files)


@pytest.fixture(params=HELMS)
def release(cluster: Cluster, request: pytest.FixtureRequest) -> Release:
    """With the claims that `ci/` names as somebody else's."""
    release = Release(cluster, request.param, f"values{next(_numbers)}")
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    for name in ("jobs", "theirs"):
        metadata = {"name": name, "namespace": release.namespace}
        cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    return release


@VALUES
def test_release_is_installed_and_gone_again(release: Release, values: Path) -> None:
    before = release.left()
    assert warnings(release.done("install", "r", release.chart, f"--values={values}")) == []
    release.cluster.eventually(release.are_ready, "ready pods")
    release.done("uninstall", "r")
    release.cluster.eventually(lambda: release.left() == before, f"nothing of the release in {release.namespace}")


@VALUES
def test_api_server_knows_every_field_and_admits_the_smoke_pod(release: Release, values: Path) -> None:
    """Helm's rendering, hooks included, held to strict validation; admission answers for each pod of it."""
    text = release.done("template", "r", release.chart, f"--values={values}", "--kube-version=1.34", *WITH_OTHERS).out
    words = ("create", "--dry-run=server", "--validate=strict", "--filename=-", "--namespace", release.namespace)
    answer = release.cluster.run("kubectl", *words, given=text)
    assert (answer.code, answer.err) == (0, "")


def test_pods_of_a_raycluster_are_admitted(release: Release) -> None:
    """KubeRay makes them of the RayCluster's templates; no operator does here."""
    values = next(file for file in CI_VALUES if file.stem == "raycluster-values")
    release.done("install", "r", release.chart, f"--values={values}")
    (cluster,) = release.get("rayclusters")["items"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for number, group in enumerate(groups):
        pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        pod["metadata"] |= {"name": f"of-ray-{number}", "namespace": release.namespace}
        answer = release.cluster.run("kubectl", "create", "--validate=strict", "--filename=-", given=json.dumps(pod))
        assert (answer.code, answer.err) == (0, "")
    release.cluster.eventually(lambda: release.are_ready() and len(release.pods()) == 1 + len(groups), "ready pods")


def test_field_of_a_raycluster_that_nobody_knows_is_refused(release: Release) -> None:
    values = next(file for file in CI_VALUES if file.stem == "raycluster-values")
    text = release.done("template", "r", release.chart, f"--values={values}", "--kube-version=1.34", *WITH_OTHERS).out
    (cluster,) = [value for value in YAML(typ="safe").load_all(text) if value["kind"] == "RayCluster"]
    cluster["spec"]["headGroup"] = {}
    words = ("create", "--dry-run=server", "--validate=strict", "--filename=-", "--namespace", release.namespace)
    answer = release.cluster.run("kubectl", *words, given=json.dumps(cluster))
    assert 'unknown field "spec.headGroup"' in answer.err
