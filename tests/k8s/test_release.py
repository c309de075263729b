"""A release's life on a real API server, under pod security "restricted", by each Helm. A pretended node says that its pods are ready."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.k8s.cluster import Cluster
from tests.k8s.releases import HELMS, Release, images, warnings


@pytest.fixture(scope="module", params=HELMS)
def installed(cluster: Cluster, request: pytest.FixtureRequest) -> Release:
    release = Release(cluster, request.param, f"installed-{request.param}")
    release.install()
    return release


def test_namespace_refuses_what_is_not_restricted(installed: Release) -> None:
    answer = installed.cluster.run("kubectl", "run", "any", "--image=any", "--namespace", installed.namespace)
    assert answer.code != 0
    assert 'violates PodSecurity "restricted' in answer.err


def test_install_makes_every_pod_ready_and_warns_of_nothing(release: Release) -> None:
    assert warnings(release.install()) == []
    assert release.are_ready()
    assert sorted(re.sub(r"control-plane-.*", "control-plane", name) for name in release.pods()) == [
        "r-dtrain-control-plane",
        "r-dtrain-ray-cpu-0",
        "r-dtrain-ray-cpu-1",
        "r-dtrain-ray-head-0",
    ]


def test_upgrade_replaces_pods_and_rollback_brings_them_back_with_the_same_tokens(release: Release) -> None:
    release.install()
    before, tokens = images(release), release.tokens()
    assert warnings(release.upgrade("--set=image.tag=next,ray.workerGroups.cpu.replicas=3")) == []
    assert (images(release), len(release.pods()), release.tokens()) == ({"next"}, 5, tokens)
    release.done("rollback", "r", "1", "--wait", "--timeout=90s")
    assert (images(release), len(release.pods()), release.tokens()) == (before, 4, tokens)


def test_upgrade_takes_a_group_of_workers_away_and_adds_another(release: Release) -> None:
    release.install()
    release.upgrade(
        "--set=ray.workerGroups.cpu=null,ray.workerGroups.big.replicas=1,ray.workerGroups.big.cpus=8,ray.workerGroups.big.memory=64Gi"
    )
    release.cluster.eventually(lambda: len(release.pods()) == 3, "three pods")
    assert "r-dtrain-ray-big-0" in release.pods()


def test_uninstall_leaves_nothing(release: Release) -> None:
    release.install("--set=rbac.users[0].kind=User,rbac.users[0].name=ann,podDisruptionBudget.protectHead=true")
    assert release.left() > {"persistentvolumeclaim/r-dtrain-home", "persistentvolumeclaim/r-dtrain-shared"}
    release.done("uninstall", "r")
    release.cluster.eventually(lambda: release.left() == set(), f"nothing in {release.namespace}")


def test_uninstall_leaves_volumes_that_are_to_be_kept_and_the_next_install_takes_them(release: Release) -> None:
    keep = "--set=controlPlane.persistence.keep=true,sharedStorage.keep=true"
    release.install(keep)
    claims = {value["metadata"]["uid"] for value in release.get("persistentvolumeclaims")["items"]}
    release.done("uninstall", "r")
    kept = {"persistentvolumeclaim/r-dtrain-home", "persistentvolumeclaim/r-dtrain-shared"}
    release.cluster.eventually(lambda: release.left() == kept, f"volumes alone in {release.namespace}")
    release.install(keep)
    assert {value["metadata"]["uid"] for value in release.get("persistentvolumeclaims")["items"]} == claims


def test_first_commands_of_the_notes_are_true(installed: Release) -> None:
    notes = installed.done("get", "notes", "r").out
    commands = [line for line in notes.splitlines() if line.startswith("  ") and "kubectl" in line]
    (forward,) = [line for line in commands if "port-forward" in line]
    words = [line for line in commands if line != forward]
    assert len(words) == 2
    answer = installed.cluster.run("bash", "-ec", "\n".join([*words, 'echo "token: $DTRAIN_TOKEN"']))
    assert re.search(r"successfully rolled out[^$]*token: \w{43}$", answer.out.strip()), answer

    service, port = re.findall(r"service/(\S+) (\d+)", forward)[0]
    assert [entry["port"] for entry in installed.get("service", service)["spec"]["ports"]] == [int(port)]
    slices = installed.get("endpointslices", "--selector", f"kubernetes.io/service-name={service}")["items"]
    assert [place["conditions"]["ready"] for found in slices for place in found["endpoints"]] == [True]


def test_install_shows_the_notes(release: Release) -> None:
    shown = release.install().out
    assert release.done("get", "notes", "r").out.strip().removeprefix("NOTES:").strip() in shown


def test_smoke_pod_is_admitted_and_removed_when_it_has_succeeded(installed: Release) -> None:
    """That it succeeds is said in the place of a kubelet: nothing runs on a pretended node."""
    with ThreadPoolExecutor(1) as others:
        testing = others.submit(installed.helm, "test", "r", "--timeout=60s")
        installed.cluster.eventually(
            lambda: "r-dtrain-smoke" in installed.pods() and installed.are_ready(), "the smoke test's pod"
        )
        succeeded = '{"status": {"phase": "Succeeded"}}'
        words = ("--subresource=status", "--type=merge", "--patch", succeeded, "--namespace", installed.namespace)
        installed.cluster.kubectl("patch", "pod", "r-dtrain-smoke", *words)
        assert testing.result().code == 0
    installed.cluster.eventually(lambda: "r-dtrain-smoke" not in installed.pods(), "the smoke test's pod gone")


@pytest.mark.parametrize("group", ["cpu", "a-long-name-gpu"])
def test_longest_names_are_ones_that_kubernetes_takes(cluster: Cluster, group: str) -> None:
    release = Release(cluster, "helm4", f"long-{group}")
    name = "a-release-with-a-name-as-long-as-helm-lets-it-be-long"
    release.done(
        "install",
        name,
        release.chart,
        f"--set=ray.workerGroups.{group}.replicas=1,ray.workerGroups.{group}.cpus=1,ray.workerGroups.{group}.memory=4Gi",
    )
    cluster.eventually(lambda: any(f"-ray-{group}-0" in pod for pod in release.pods()), "a worker", patience_s=30)
