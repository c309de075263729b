"""Every field of the job file, wrong in every way that its JSON schema knows of."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dtrain.errors import SpecError
from dtrain.spec.expectation import branches, fields
from dtrain.spec.load import load_job

GOOD: dict[str, Any] = {
    "name": "clicks",
    "task": "clicks:Task",
    "code": ".",
    "params": {"lr": 0.1},
    "source": {
        "topic": "clicks",
        "bootstrap": "localhost:9092",
        "format": "json",
        "start": "earliest",
        "end": "never",
        "isolation": "read_committed",
        "on_bad_record": {"send_to": "clicks.bad", "budget": 0.1},
    },
    "batch": {"rows": 64, "max_wait": "200ms", "num_slices": 8, "order": "strict"},
    "workers": {"min": 1, "max": 2, "cpus": 1, "gpus": 0},
    "train": {"seed": 1, "reduction": "sum", "numerics": "exact"},
    "checkpoint": {"to": "checkpoints", "every": "10s", "keep": 3},
    "evaluate": {"window": 100, "metrics": ["auroc"]},
    "queue": "default",
}
REMOVED, WRONG_KINDS = object(), {"string": 7, "integer": "many", "number": "much", "object": 7, "array": 7}


def wrong_values(schema: dict[str, Any], is_required: bool) -> Iterator[tuple[str, Any]]:
    """Values that the schema does not allow, each with what is wrong with it."""
    kinds = {branch.get("type") for branch in branches(schema)}
    if is_required:
        yield "missing", REMOVED
    yield "empty", None
    yield "truth", True
    yield "kind", [[]] if len(kinds) > 1 else WRONG_KINDS[kinds.pop()]
    for branch in branches(schema):
        if "enum" in branch or "const" in branch:
            yield "misspelt", f"{branch.get('enum', [branch.get('const')])[0]}x"
        if branch.get("pattern") or branch.get("minLength"):
            yield "form", "" if branch.get("minLength") else "no such / form"
    unit = 1 if "integer" in kinds else 0.001
    for key, beyond in (("minimum", -unit), ("exclusiveMinimum", 0), ("maximum", unit), ("exclusiveMaximum", 0)):
        if key in schema:
            yield key, schema[key] + beyond


def cases() -> Iterator[Any]:
    for path, schema, is_required in fields():
        for what, value in wrong_values(dict(schema), is_required):
            yield pytest.param(path, path, value, id=f"{'.'.join(path)}-{what}")
        yield pytest.param((*path[:-1], f"{path[-1]}x"), path, GOOD, id=f"{'.'.join(path)}-misspelt-key")
        if schema.get("additionalProperties") is False:
            yield pytest.param((*path, "zebra"), (*path, "zebra"), 1, id=f"{'.'.join(path)}-extra-key")
    yield pytest.param(("zebra",), ("zebra",), 1, id="extra-key")


def write(folder: Path, *, path: tuple[str, ...], instead_of: tuple[str, ...], value: Any) -> Path:
    """A job file that is good but for the value at `path`, which stands where `instead_of` stood."""
    job = copy.deepcopy(GOOD)
    section = job
    for key in path[:-1]:
        section = section[key]
    old = section.pop(instead_of[-1], None) if path != instead_of or value is REMOVED else None
    if value is not REMOVED:
        section[path[-1]] = old if value is GOOD else value
    text = io.StringIO()
    YAML().dump(job, text)
    (folder / "clicks.py").touch()
    (folder / "job.yaml").write_text(text.getvalue())
    return folder / "job.yaml"


def test_job_good_loads(tmp_path: Path) -> None:
    file = write(tmp_path, path=("name",), instead_of=("name",), value="clicks")
    assert load_job(file, environment={}).source.on_bad_record.send_to == "clicks.bad"


@pytest.mark.parametrize(("path", "instead_of", "value"), list(cases()))
def test_field_wrong_is_named_with_line_reason_and_fix(
    tmp_path: Path, path: tuple[str, ...], instead_of: tuple[str, ...], value: Any
) -> None:
    file = write(tmp_path, path=path, instead_of=instead_of, value=value)
    with pytest.raises(SpecError) as caught:
        load_job(file, environment={})
    error = caught.value
    lines = file.read_text().splitlines()
    assert error.path.split(".")[: len(path)] == list(path)
    assert error.reason
    assert error.fix
    assert error.others == ()
    if value is REMOVED:
        assert len(path) == 1 or lines[error.line - 1].strip() == f"{path[-2]}:"
    else:
        assert lines[error.line - 1].strip().startswith((f"{path[-1]}:", "- "))
    if value is GOOD:
        assert error.fix == f"did you mean `{instead_of[-1]}`?"
