"""Releases of the chart on a cluster, by Helm's command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.k8s.cluster import Cluster, is_true
from tests.k8s.commands import Answer
from tests.k8s.helm import CHART

HELMS = ("helm4", "helm3")
_NUM_VOLUMES = 4
_OF_KUBERNETES = {"configmap/kube-root-ca.crt", "serviceaccount/default"}


class Release:
    """The release `r` in a namespace of its own, under pod security "restricted".

    Args:
        helm: which.
        namespace: made here, with volumes that may be claimed.
        chart: its folder.
    """

    def __init__(self, cluster: Cluster, helm: str, namespace: str, *, chart: Path = CHART) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._helm = helm
        self.chart = str(chart)
        modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        cluster.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": modes}}, *_volumes(namespace)
        )
        cluster.eventually(lambda: "serviceaccount/default" in self._names("serviceaccounts"), "a namespace's account")

    def helm(self, verb: str, *words: str) -> Answer:
        """What Helm says; it may refuse."""
        return self.cluster.run(self._helm, verb, *words, "--namespace", self.namespace)

    def done(self, verb: str, *words: str) -> Answer:
        """What Helm says; it must not refuse."""
        answer = self.helm(verb, *words)
        assert answer.code == 0, answer.err
        return answer

    def install(self, *words: str) -> Answer:
        """Every pod is ready."""
        return self.done("install", "r", self.chart, "--wait", "--timeout=90s", *words)

    def upgrade(self, *words: str) -> Answer:
        """Every pod is the new one, and ready."""
        return self.done("upgrade", "r", self.chart, "--wait", "--timeout=90s", *words)

    def refused(self, *words: str) -> str:
        """Why it isn't installed; nothing of it is there."""
        answer = self.helm("install", "r", self.chart, *words)
        assert answer.code != 0
        assert self._names("secrets") == set()  # Helm's own record of a release would be the first
        return answer.err

    def get(self, *words: str) -> Any:
        """What `kubectl get` finds in the namespace."""
        return self.cluster.get(*words, "--namespace", self.namespace)

    def pods(self) -> dict[str, dict[str, Any]]:
        """By name, those that are not about to go."""
        return {pod["metadata"]["name"]: pod for pod in self.get("pods")["items"] if "deletionTimestamp" not in pod["metadata"]}

    def are_ready(self) -> bool:
        """There are pods, and all are."""
        pods = self.pods()
        return bool(pods) and all(is_true(pod, "Ready") for pod in pods.values())

    def tokens(self) -> list[dict[str, str]]:
        """What the Secrets that the chart makes hold."""
        return [self.get("secret", f"r-dtrain-{name}")["data"] for name in ("api", "ray")]

    def left(self) -> set[str]:
        """Every object in the namespace, of every kind, that Kubernetes doesn't put there itself."""
        kinds = self.cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
        return self._names(",".join(kind for kind in kinds if not kind.startswith("events"))) - _OF_KUBERNETES

    def _names(self, kinds: str) -> set[str]:
        return set(self.cluster.kubectl("get", kinds, "-o", "name", "--namespace", self.namespace).split())


def images(release: Release) -> set[str]:
    """Tags of what the pods run."""
    return {container["image"].rpartition(":")[2] for pod in release.pods().values() for container in pod["spec"]["containers"]}


def warnings(answer: Answer) -> list[str]:
    """What the API server had to say beside what it did: Helm 3 writes `W1201 ...`, Helm 4 `level=WARN`."""
    return [line for line in answer.err.splitlines() if re.search(r"^W\d{4}|WARN|[Ww]arning|would violate", line)]


def _volumes(namespace: str) -> list[dict[str, Any]]:
    """Some that wait to be claimed, of the cluster's default class: nobody provisions here."""
    default = {"name": "static", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    kind = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": default,
        "provisioner": "kubernetes.io/no-provisioner",
    }
    modes = ["ReadWriteOnce", "ReadWriteMany"]
    spec = {
        "capacity": {"storage": "20Gi"},
        "accessModes": modes,
        "storageClassName": "static",
        "hostPath": {"path": "/nowhere"},
    }
    names = [f"{namespace}-{number}" for number in range(_NUM_VOLUMES)]
    return [
        kind,
        *({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec} for name in names),
    ]
