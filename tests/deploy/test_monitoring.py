"""Alerts and dashboard speak of metrics that exist, and are what Prometheus and Grafana take."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dtrain.metrics.catalogue import CATALOGUE, Kind
from tests.support.compose import FILE, read
from tests.support.kafka import REPOSITORY

FILES = REPOSITORY / "helm" / "dtrain" / "files"
ALERTS, DASHBOARD = FILES / "alerts.yaml", FILES / "dashboard.json"
UNIT_TESTS = Path(__file__).with_name("alerts_test.yaml")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's prometheus")


def names() -> set[str]:
    """Of every series that Prometheus gets."""
    found = set()
    for metric in CATALOGUE:
        ends = ("_bucket", "_sum", "_count") if metric.kind is Kind.HISTOGRAM else ("",)
        found |= {metric.name + end for end in ends}
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in YAML(typ="safe").load(ALERTS)["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("file", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_that_is_named_exists(file: Path) -> None:
    used = set(re.findall(r"\bdtrain_[a-z_]+", file.read_text()))
    assert used
    assert used <= names()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "description"}
    assert rule["labels"]["severity"] in ("warning", "critical")


def test_dashboard_has_panels_that_do_not_overlap() -> None:
    board = json.loads(DASHBOARD.read_text())
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_compose_mounts_the_charts_own_files() -> None:
    services = read(FILE)["services"]
    mounted = {
        (FILE.parent / volume.split(":")[0]).resolve() for service in services.values() for volume in service.get("volumes", ())
    }
    assert {ALERTS, DASHBOARD, FILES / "smoke"} <= mounted


def test_compose_mounts_and_builds_what_exists() -> None:
    services = read(FILE)["services"]
    for service in services.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert not source.startswith(".") or (FILE.parent / source).exists()
        if "build" in service:
            dockerfile = (FILE.parent / service["build"]["context"] / service["build"]["dockerfile"]).read_text()
            assert f" AS {service['build']['target']}\n" in dockerfile


@pytest.mark.parametrize("service", ["ray-head", "ray-worker", "control-plane", "prometheus", "grafana"])
def test_container_may_change_nothing_but_its_volumes(service: str) -> None:
    found = read(FILE)["services"][service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in found.get("ports", ()))


@needs_promtool
def test_promtool_takes_rules_and_configuration(tmp_path: Path) -> None:
    config = (FILE.parent / "prometheus.yaml").read_text().replace("/etc/prometheus/alerts.yaml", str(ALERTS))
    (tmp_path / "prometheus.yaml").write_text(config)
    for words in (["check", "rules", str(ALERTS)], ["check", "config", str(tmp_path / "prometheus.yaml")]):
        done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    file = tmp_path / "alerts_test.yaml"
    file.write_text(UNIT_TESTS.read_text().replace("alerts.yaml", str(ALERTS)))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
