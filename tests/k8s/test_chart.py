"""The chart: what it renders, what it refuses, what it says of itself."""

from __future__ import annotations

import json
import re
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from dtrain.cli.main import app
from tests.k8s.helm import CHART, CI_VALUES, Helm, HelmError, setting, values_of
from tests.k8s.refusals import LACKING, WRONG

VERSIONS = ("1.27", "1.34", "1.37")
VALUES = pytest.mark.parametrize("values", [values_of(file) for file in CI_VALUES], ids=[file.stem for file in CI_VALUES])
PODS = {"Deployment", "StatefulSet", "Pod"}
OTHERS = {"RayCluster", "ServiceMonitor", "ScrapeConfig", "PrometheusRule"}
"""Kinds that Kubernetes itself does not know."""


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm.on_any_cluster(tmp_path_factory.mktemp("chart"))


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every pod that `objects` lead to, as spec and metadata."""
    found = [value if value["kind"] == "Pod" else value["spec"]["template"] for value in objects if value["kind"] in PODS]
    for value in objects:
        if value["kind"] == "RayCluster":
            groups = [value["spec"]["headGroupSpec"], *value["spec"]["workerGroupSpecs"]]
            found += [group["template"] for group in groups]
    return found


def test_lint_finds_nothing() -> None:
    assert Helm().complaints() == []


@pytest.mark.parametrize("version", VERSIONS)
@VALUES
def test_objects_are_what_kubernetes_knows(helm: Helm, values: dict[str, Any], version: str) -> None:
    objects = helm.objects(values)
    templates = [{"apiVersion": "v1", "kind": "Pod", **pod} for pod in pods(objects)]
    for value in [*(value for value in objects if value["kind"] not in OTHERS), *templates]:
        value["metadata"].setdefault("name", "of-a-template")
        kubernetes_validate.validate(value, version, strict=True)


def test_object_with_a_field_that_nobody_knows_is_found(helm: Helm) -> None:
    (deployment,) = [value for value in helm.objects() if value["kind"] == "Deployment"]
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(deployment, "1.34", strict=True)


@VALUES
def test_names_fit_and_are_used_once(helm: Helm, values: dict[str, Any]) -> None:
    names = [(value["kind"], value["metadata"]["name"]) for value in helm.objects(values)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name) for _, name in names)


@VALUES
def test_selectors_meet_their_pods(helm: Helm, values: dict[str, Any]) -> None:
    objects = helm.objects(values)
    labels = [pod["metadata"]["labels"] for pod in pods(objects)]
    for value in objects:
        spec = value.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector", {}))
        wanted = selector.get("matchLabels", selector if value["kind"] == "Service" else {})
        if value["kind"] in {"Service", "Deployment", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy"}:
            assert any(wanted.items() <= found.items() for found in labels), value["metadata"]["name"]


@VALUES
def test_what_pods_mount_is_made_here_or_named_by_the_values(helm: Helm, values: dict[str, Any]) -> None:
    objects = helm.objects(values)
    made = {value["metadata"]["name"] for value in objects} | set(re.findall(r"[-a-z]+", json.dumps(values)))
    for pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        (container,) = pod["spec"]["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
        for volume in volumes.values():
            sources = volume.get("secret", {}).get("secretName"), volume.get("configMap", {}).get("name")
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert {name for name in (*sources, claim) if name} <= made


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_value_that_cannot_be_meant_is_refused_by_name(helm: Helm, text: str, said: str) -> None:
    with pytest.raises(HelmError, match=said):
        helm.rendered(setting(text))


@pytest.mark.parametrize(("text", "said"), LACKING)
def test_what_the_cluster_has_not_is_said(text: str, said: str) -> None:
    with pytest.raises(HelmError, match=said):
        Helm().rendered(setting(text))


@VALUES
def test_pods_are_restricted_and_bounded(helm: Helm, values: dict[str, Any]) -> None:
    found = pods(helm.objects(values))
    assert found
    for pod in found:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert "memory" in container["resources"]["limits"]
            assert "latest" not in container["image"]


@VALUES
def test_ray_nodes_have_shared_memory_for_their_object_store(helm: Helm, values: dict[str, Any]) -> None:
    for pod in pods(helm.objects(values)):
        if pod["metadata"]["labels"].get("dtrain.io/ray") != "true":
            continue
        (memory,) = [volume["emptyDir"] for volume in pod["spec"]["volumes"] if volume["name"] == "shared-memory"]
        (container,) = pod["spec"]["containers"]
        assert memory["medium"] == "Memory"
        stores = [int(word.partition("=")[2]) for word in container.get("args", ()) if word.startswith("--store-bytes=")]
        assert all(store <= (int(memory["sizeLimit"].removesuffix("Mi")) - 256) << 20 for store in stores)


@VALUES
def test_no_secret_stands_in_a_pod(helm: Helm, values: dict[str, Any]) -> None:
    objects = helm.objects(values)
    tokens = [token for value in objects if value["kind"] == "Secret" for token in value["data"].values()]
    assert not any(token in json.dumps(pods(objects)) for token in tokens)


def test_existing_secrets_are_used_and_none_is_made(helm: Helm) -> None:
    objects = helm.objects(values_of(CHART / "ci" / "secrets-values.yaml"))
    assert "Secret" not in {value["kind"] for value in objects}
    text = json.dumps(objects)
    assert all(name in text for name in ("dtrain-api", "dtrain-ray", "kafka-login", "checkpoint-bucket"))


def test_every_value_is_described_and_in_the_schema() -> None:
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    lines = text.splitlines()
    for number, line in enumerate(lines):
        key = re.fullmatch(r"( *)([A-Za-z]+):(.*)", line)
        is_inside = not key or line.startswith(("      requests", "    requests")) or "limits:" in line
        if is_inside or "- " in line or (not key[3] and key[2] not in {"clients", "resources", "labels"}) or "grafana" in line:
            continue
        assert lines[number - 1].lstrip().startswith("#"), f"{key[2]} in line {number + 1} has no description"
    values = YAML(typ="safe").load(text)
    assert _undeclared(values, schema) == []


def _undeclared(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> list[str]:
    """Values that the schema does not name, or whose section is open."""
    if "properties" not in schema:
        return []
    found = [] if schema.get("additionalProperties") is False else [f"{path} is open"]
    for key, value in values.items():
        if key not in schema["properties"]:
            found.append(f"{path}.{key}")
        elif isinstance(value, dict):
            found += _undeclared(value, schema["properties"][key], f"{path}.{key}")
    return found


@pytest.mark.parametrize("component", ["control-plane", "ray-head", "ray-cpu", "smoke-test"])
def test_words_of_containers_are_ones_that_the_command_line_takes(helm: Helm, component: str) -> None:
    (pod,) = [p for p in pods(helm.objects()) if p["metadata"]["labels"].get("app.kubernetes.io/component") == component]
    name, *words = pod["spec"]["containers"][0]["args"]
    command = get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.make_context(name, [word.replace("$(POD_IP)", "10.0.0.1") for word in words]).params


def test_notes_say_the_first_commands(helm: Helm) -> None:
    (notes,) = [text for name, text in helm.rendered().items() if name.endswith("NOTES.txt")]
    assert "dtrain submit job.yaml --watch" in notes
    assert "get secret r-dtrain-api -o jsonpath='{.data.token}'" in notes


def test_notes_read_a_token_whose_key_has_a_dot(helm: Helm) -> None:
    (notes,) = [text for name, text in helm.rendered(setting("auth.api.key=the.token")).items() if name.endswith("NOTES.txt")]
    assert r"-o jsonpath='{.data.the\.token}'" in notes


def test_gpu_workers_ask_for_gpus_and_have_the_image_for_them(helm: Helm) -> None:
    objects = helm.objects(values_of(CHART / "ci" / "gpu-values.yaml"))
    (group,) = [value for value in objects if value["kind"] == "StatefulSet" and value["metadata"]["name"].endswith("-gpu")]
    (container,) = group["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["image"] == "dtrain/worker-cuda:0.1.0"
    assert "--gpus=1" in container["args"]
