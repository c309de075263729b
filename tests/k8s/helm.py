"""Helm on the chart of this repository: its own library (version 4), without a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import helm_python
from ruamel.yaml import YAML

CHART = Path(__file__).parents[2] / "helm" / "dtrain"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
HelmError = helm_python.HelmError


class Helm:
    """Renders the chart as a release `r` in the namespace `n`.

    Args:
        chart: its folder.
    """

    def __init__(self, chart: Path = CHART) -> None:
        self._chart = chart

    @classmethod
    def on_any_cluster(cls, folder: Path) -> Helm:
        """One whose clusters have whatever the chart asks for: a copy in `folder` without the question."""
        copy = shutil.copytree(CHART, folder / "dtrain")
        (copy / "templates" / "checks.yaml").unlink()
        return cls(copy)

    def rendered(self, values: dict[str, Any] | None = None) -> dict[str, str]:
        """The text of each template; values that the schema does not take are refused."""
        with helm_python.Chart.load(str(self._chart)) as chart:
            chart.validate_schema(chart.merge_values(values or {}))
            texts: dict[str, str] = chart.render(values or {}, name="r", namespace="n", is_install=True)
        return texts

    def objects(self, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Every object of the release."""
        yaml = YAML(typ="safe")
        texts = (text for name, text in self.rendered(values).items() if name.endswith(".yaml"))
        return [value for text in texts for value in yaml.load_all(text) if value]

    def complaints(self) -> list[str]:
        """What `helm lint --strict` has to say that is more than advice."""
        report = helm_python.lint(str(self._chart), {}, strict=True)
        return [*report["errors"], *(found["error"] for found in report["messages"] if found["severity"] > 1)]


def values_of(file: Path) -> dict[str, Any]:
    """A file of values."""
    return YAML(typ="safe").load(file) or {}


def setting(text: str) -> dict[str, Any]:
    """What `--set TEXT` means."""
    value: dict[str, Any] = helm_python.parse_set_string(text)
    return value
