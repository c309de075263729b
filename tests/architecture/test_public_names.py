import subprocess
import sys

import pytest

import dtrain
from tests.architecture.imports import ROOT, modules


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after `statement`."""
    script = f"{statement}\nimport sys; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", dtrain.__all__)
def test_public_name_resolves(name: str) -> None:
    found = getattr(dtrain, name)
    assert name == "__version__" or found.__name__ == name


def test_public_names_are_those_that_have_a_home() -> None:
    assert {*dtrain._HOMES, "__version__"} == set(dtrain.__all__)
    assert dtrain.__all__ == sorted(dtrain.__all__)


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Traner"):
        dtrain.Traner  # noqa: B018


def test_import_of_dtrain_loads_nothing_heavy() -> None:
    assert loaded_by("import dtrain") & {"torch", "ray", "pyarrow", "kafka", "grpc", "pydantic", "sqlalchemy", "numpy"} == set()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("dtrain.cli.main", {"torch", "ray", "pyarrow", "kafka", "sqlalchemy"}),
        ("dtrain.client.client", {"torch", "ray", "pyarrow", "kafka", "sqlalchemy"}),
        ("dtrain.control.server", {"torch", "ray", "kafka"}),
        ("dtrain.runtime.coordinator", {"torch"}),
        ("dtrain.runtime.reader", {"torch"}),
        ("dtrain.checkpoint.commit", {"torch", "ray", "numpy", "pyarrow"}),
    ],
)
def test_process_started_from_a_module_has_not_loaded_what_it_does_not_need(module: str, heavy: set[str]) -> None:
    if module not in modules():
        pytest.skip(f"{module} is not built yet")
    assert loaded_by(f"import {module}") & heavy == set()
