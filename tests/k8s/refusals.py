"""Values that the chart refuses, as words of `--set`, and what it says then."""

from __future__ import annotations

WRONG = [
    ("typo=1", "typo"),
    ("ray.mode=cluster", "ray/mode|ray.mode"),
    ("ray.workerGroups.cpu.replicas=-1", "replicas"),
    ("ray.workerGroups.cpu.gpu=1", "gpu|cpu"),
    ("ray.workerGroups.cpu.cpus=half", "cpus|cpu"),
    ("ray.workerGroups.head.replicas=1", "head"),
    ("ray.externalAddress=somewhere", "externalAddress"),
    ("controlPlane.port=70000", "port"),
    ("controlPlane.replicas=2", "replicas"),
    ("podSecurity.runAsUser=0", "runAsUser"),
    ("auth.api.token=s3cret", "token"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("sharedStorage.accessModes[0]=ReadOnlyMany", "accessModes"),
    ("metrics.serviceMonitor.interval=often", "interval"),
    ("tests.timeoutSeconds=0", "timeoutSeconds"),
    ("fullnameOverride=Trainers", "fullnameOverride"),
    ("rbac.users[0].kind=ServiceAccount,rbac.users[0].name=ci", "namespace"),
]
"""By the schema."""

LACKING = [
    ("ray.mode=raycluster", "needs KubeRay"),
    ("ray.mode=external", "needs ray.externalAddress"),
    ("ray.mode=external,ray.externalAddress=a:1", "needs auth.ray.existingSecret"),
    ("metrics.serviceMonitor.enabled=true", "needs the Prometheus operator"),
    ("metrics.scrapeConfig.enabled=true", "needs the Prometheus operator"),
    ("metrics.prometheusRule.enabled=true", "needs the Prometheus operator"),
    ("sharedStorage.enabled=false", "tests.checkpoints"),
]
"""By the chart, on a cluster that has nothing but Kubernetes."""
