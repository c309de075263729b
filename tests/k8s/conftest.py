"""What `tests/k8s/tools.sh` has fetched can be imported; a rendering Helm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FETCHED = Path(__file__).parents[2] / "build" / "k8s" / "python"
if not FETCHED.is_dir():
    pytest.exit("nothing is fetched: run `make test-k8s`, or tests/k8s/tools.sh", returncode=1)
sys.path.append(str(FETCHED))  # behind our own environment, of which nothing may change
