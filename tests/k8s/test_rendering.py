"""What each Helm's own command renders: no complaint of lint's or kubeconform's, strictly, others' kinds included."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.k8s.commands import BUILT, DEFINITIONS, WITH_OTHERS, run
from tests.k8s.helm import CHART, CI_VALUES
from tests.k8s.releases import HELMS

VERSIONS = ("1.27", "1.34", "1.37")
KUBERNETES = BUILT / "python" / "kubernetes_validate" / "kubernetes-json-schema"
VALUES = pytest.mark.parametrize("values", CI_VALUES, ids=[file.stem for file in CI_VALUES])
HELM = pytest.mark.parametrize("helm", HELMS)

pytestmark = pytest.mark.usefixtures("built")


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strict ones, a file each, of others' kinds; Kubernetes' own are laid beside them when they are asked for."""
    folder = tmp_path_factory.mktemp("schemas")
    for file in DEFINITIONS.iterdir():
        spec = YAML(typ="safe").load(file)["spec"]
        for version in spec["versions"]:
            name = f"{spec['names']['singular']}-{spec['group'].split('.')[0]}-{version['name']}.json"
            (folder / name).write_text(json.dumps(strict(version["schema"]["openAPIV3Schema"])))
    return folder


def lay(name: str, version: str, schemas: Path) -> None:
    """A schema of Kubernetes', if it has one of that name; its references lead to files, not to addresses."""
    to = schemas / version / name
    of_wheel = KUBERNETES / f"v{version}.0-local-strict" / name
    if of_wheel.exists() and not to.exists():
        to.parent.mkdir(exist_ok=True)
        schema = json.loads(of_wheel.read_text().replace('"/api/_definitions.json#', '"_definitions.json#'))
        to.write_text(json.dumps({key: value for key, value in schema.items() if key != "$id"}))


def strict(schema: Any) -> Any:
    """The same, where a field that isn't named is refused."""
    if isinstance(schema, list):
        return [strict(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    is_closed = isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields")
    return {"additionalProperties": False, **found} if is_closed else found


def rendered(helm: str, values: Path, version: str, home: Path) -> str:
    """All objects, as text."""
    answer = run(helm, "template", "r", str(CHART), f"--values={values}", f"--kube-version={version}", *WITH_OTHERS, home=home)
    assert answer.code == 0, answer.err
    return answer.out


def complaints(text: str, version: str, schemas: Path) -> list[str]:
    """What kubeconform finds; a kind without a schema is found too."""
    lay("_definitions.json", version, schemas)
    for of, kind in re.findall(r"^apiVersion: (\S+)\nkind: (\S+)", text, re.MULTILINE):
        group, _, last = of.rpartition("/")
        lay("-".join(filter(None, (kind, group.partition(".")[0], last))).lower() + ".json", version, schemas)
    name = "{{.ResourceKind}}{{.KindSuffix}}.json"
    places = [f"-schema-location={folder}/{name}" for folder in (schemas / version, schemas)]
    found = json.loads(run("kubeconform", "-strict", "-output=json", *places, home=schemas, given=text).out)
    return [resource["msg"] for resource in found["resources"]]


@HELM
@VALUES
def test_lint_finds_nothing(helm: str, values: Path, tmp_path: Path) -> None:
    answer = run(helm, "lint", "--strict", str(CHART), f"--values={values}", home=tmp_path)
    assert answer.code == 0, answer.out + answer.err
    assert "1 chart(s) linted, 0 chart(s) failed" in answer.out
    assert "[WARNING]" not in answer.out


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_conform(version: str, schemas: Path, tmp_path: Path) -> None:
    """Of all values and both Helms at once: kubeconform takes seconds to read its schemas."""
    texts = [rendered(helm, values, version, tmp_path) for helm in HELMS for values in CI_VALUES]
    assert complaints("\n---\n".join(texts), version, schemas) == []


@pytest.mark.parametrize(
    ("kind", "field"), [("Service", "selektor: {}"), ("RayCluster", "headGroup: {}"), ("ServiceMonitor", "endpoint: []")]
)
def test_field_that_nobody_knows_is_found(kind: str, field: str, schemas: Path) -> None:
    version = "v1" if kind == "Service" else {"RayCluster": "ray.io/v1", "ServiceMonitor": "monitoring.coreos.com/v1"}[kind]
    text = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: r}}\nspec: {{{field}}}"
    assert any(field.partition(":")[0] in complaint for complaint in complaints(text, "1.34", schemas))


def test_both_helms_render_the_same(tmp_path: Path) -> None:
    """But for the order in which they write."""
    values = next(file for file in CI_VALUES if file.stem == "secrets-values")  # makes no tokens
    first, other = (list(YAML(typ="safe").load_all(rendered(name, values, "1.34", tmp_path))) for name in HELMS)
    assert sorted(map(json.dumps, first)) == sorted(map(json.dumps, other))
