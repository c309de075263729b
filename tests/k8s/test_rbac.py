"""Who may do what, asked of the API server: the chart's own accounts nothing, its users a token and a port."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.k8s.cluster import Cluster
from tests.k8s.releases import Release

USERS = "--set=rbac.users[0].kind=User,rbac.users[0].name=ann,rbac.users[1].kind=ServiceAccount,rbac.users[1].name=ci,rbac.users[1].namespace=elsewhere"
WHO = pytest.mark.parametrize("who", ["ann", "system:serviceaccount:elsewhere:ci"])


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Release]:
    release = Release(cluster, "helm4", "rbac")
    release.install(USERS)
    yield release
    release.done("uninstall", "r")


def can(release: Release, who: str, *words: str, namespace: str = "") -> bool:
    """`kubectl auth can-i WORDS` as `who`."""
    where = ("--namespace", namespace or release.namespace)
    answer = release.cluster.run("kubectl", "auth", "can-i", *words, f"--as={who}", *where).out.strip()
    assert answer in {"yes", "no"}
    return answer == "yes"


@pytest.mark.parametrize("account", ["r-dtrain-control-plane", "r-dtrain-ray"])
@pytest.mark.parametrize(
    "words",
    [
        ("get", "secrets"),
        ("get", "secret/r-dtrain-api"),
        ("get", "configmaps"),
        ("list", "pods"),
        ("create", "pods"),
        ("create", "pods", "--subresource=exec"),
        ("create", "serviceaccounts", "--subresource=token"),
        ("patch", "deployments.apps"),
        ("*", "*"),
    ],
)
def test_account_of_the_chart_may_do_nothing(installed: Release, account: str, words: tuple[str, ...]) -> None:
    assert not can(installed, f"system:serviceaccount:{installed.namespace}:{account}", *words)


def test_accounts_are_those_of_the_pods_and_no_pod_has_a_token(installed: Release) -> None:
    specs = [pod["spec"] for pod in installed.pods().values()]
    assert {spec["serviceAccountName"] for spec in specs} == {"r-dtrain-control-plane", "r-dtrain-ray"}
    assert not any("projected" in volume for spec in specs for volume in spec["volumes"])


@WHO
@pytest.mark.parametrize(
    "words",
    [
        ("get", "secret/r-dtrain-api"),
        ("get", "service/r-dtrain"),
        ("list", "pods"),
        ("get", "pods"),
        ("create", "pods", "--subresource=portforward"),
    ],
)
def test_user_may_read_the_token_and_forward_a_port(installed: Release, who: str, words: tuple[str, ...]) -> None:
    assert can(installed, who, *words)
    assert not can(installed, who, *words, namespace="default")
    assert not can(installed, "somebody-else", *words)


@WHO
@pytest.mark.parametrize(
    "words",
    [
        ("list", "secrets"),
        ("get", "secret/r-dtrain-ray"),
        ("get", "service/r-dtrain-metrics"),
        ("update", "secret/r-dtrain-api"),
        ("create", "pods"),
        ("delete", "pods"),
        ("create", "pods", "--subresource=exec"),
        ("get", "pods", "--subresource=log"),
        ("patch", "deployments.apps"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
    ],
)
def test_user_may_do_nothing_else(installed: Release, who: str, words: tuple[str, ...]) -> None:
    assert not can(installed, who, *words)


def test_user_reads_the_token_as_the_notes_say(installed: Release) -> None:
    words = ("get", "secret", "r-dtrain-api", "-o", "jsonpath={.data.token}", "--namespace", installed.namespace)
    assert installed.cluster.kubectl(*words, "--as=ann") == installed.tokens()[0]["token"]
