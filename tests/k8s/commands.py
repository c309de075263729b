"""What `tests/k8s/binaries.sh` has built, as commands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BUILT = Path(__file__).parents[2] / "build" / "k8s"
BINARIES = BUILT / "bin"
DEFINITIONS = BUILT / "crds"

_OTHERS = (
    "ray.io/v1/RayCluster",
    *(f"monitoring.coreos.com/{kind}" for kind in ("v1/ServiceMonitor", "v1/PrometheusRule", "v1alpha1/ScrapeConfig")),
)
WITH_OTHERS = [f"--api-versions={kind}" for kind in _OTHERS]
"""For `helm template`: the cluster has whatever the chart asks for."""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str


def run(
    program: str, *words: str, home: Path, given: str = "", more: Mapping[str, str] | None = None, limit_s: float = 120.0
) -> Answer:
    """One of the binaries, or another program that finds them first.

    Args:
        home: where it may write; nothing of this machine's user is seen.
        given: its standard input.
        more: environment variables.
        limit_s: it must be over by then.
    """
    environment = {"PATH": f"{BINARIES}:{os.environ['PATH']}", "HOME": str(home), **(more or {})}
    done = subprocess.run([program, *words], input=given, capture_output=True, text=True, env=environment, timeout=limit_s)
    return Answer(done.returncode, done.stdout, done.stderr)
