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
        "history": {"files": "2013-*.parquet", "format": "csv", "at_a_time": 2},
        "engine": "librdkafka",
        "security": {
            "protocol": "sasl_ssl",
            "mechanism": "scram-sha-512",
            "username": {"env": "KAFKA_USER"},
            "password": {"file": "password"},
            "ca": "ca.pem",
            "cert": "cert.pem",
            "key": "key.pem",
        },
        "format": "json",
        "start": "earliest",
        "end": "never",
        "isolation": "read_committed",
        "on_lag": {"over": "10m", "do": "skip_to_latest"},
        "on_bad_record": {"send_to": "clicks.bad", "budget": 0.1},
    },
    "transform": {
        "columns": {"price": "float32", "k": {"type": "int64", "default": 0}},
        "filter": "price > 0",
        "deduplicate": {"by": "k", "window": 100},
        "map": "clicks:make",
    },
    "batch": {"rows": 64, "max_wait": "200ms", "num_slices": 8, "order": "strict"},
    "workers": {"min": 1, "max": 2, "cpus": 1, "gpus": 0, "spares": 1, "hot": True, "lease": "2s"},
    "train": {
        "seed": 1,
        "reduction": "sum",
        "numerics": "exact",
        "micro_batch_rows": 16,
        "clip_norm": 1.5,
        "weight_decay": 0.1,
        "schedule": {"name": "cosine", "warmup_steps": 10, "total_steps": 100, "floor": 0.1},
        "on_non_finite": "skip",
        "early_stop": {"metric": "auroc", "patience_rows": 1000, "min_delta": 0.001},
        "check_every": 100,
    },
    "checkpoint": {"to": "checkpoints", "every": "10s", "keep": 3},
    "evaluate": {"window": 100, "metrics": ["auroc"], "held_out": 0.01},
    "queue": "default",
}
BY_TOKEN: dict[str, Any] = {
    "protocol": "sasl_ssl",
    "mechanism": "oauthbearer",
    "oauth": {
        "token_url": "https://login.example/token",
        "client_id": {"env": "CLIENT_ID"},
        "client_secret": {"file": "secret"},
        "scope": "kafka",
    },
}
"""What `source.security` may be instead."""
REMOVED, WRONG_KINDS = object(), {"string": 7, "integer": "many", "number": "much", "object": 7, "array": 7, "boolean": "maybe"}


def wrong_values(schema: dict[str, Any], is_required: bool) -> Iterator[tuple[str, Any]]:
    """Values that the schema does not allow, each with what is wrong with it."""
    kinds = {branch.get("type") for branch in branches(schema)}
    if is_required:
        yield "missing", REMOVED
    yield "empty", None
    if "boolean" not in kinds:
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


def good_with(path: tuple[str, ...], schema: dict[str, Any]) -> dict[str, Any]:
    """A good job that has the field at `path`: of formats, and of ways to log in, there is only one at a time."""
    job = copy.deepcopy(GOOD)
    if path[:3] == ("source", "security", "oauth"):
        job["source"]["security"] = copy.deepcopy(BY_TOKEN)
    if path[:2] != ("source", "format") or len(path) == 2:
        return job
    secret = {"file": "secret"} if path[-1] == "file" else {"env": "SECRET"}
    login = {"token": secret} if "token" in path else {"username": secret, "password": dict(secret)}
    registry = {"url": "https://registry:8081", "ca": "ca.pem", "timeout": "2s"} | login
    examples = {
        "avro": {"type": "avro", "definition": {"type": "record"}, "registry": registry},
        "protobuf": {"type": "protobuf", "descriptors": "clicks.desc", "message": "shop.Click"},
        "raw": {"type": "raw", "decoder": "clicks:decode"},
    }
    name = schema.get("const") or next(name for name, example in examples.items() if path[2] in example)
    job["source"]["format"] = examples[name]
    return job


def cases() -> Iterator[Any]:
    for path, schema, is_required in fields():
        job = good_with(path, dict(schema))
        for what, value in wrong_values(dict(schema), is_required):
            yield pytest.param(job, path, path, value, id=f"{'.'.join(path)}-{what}")
        yield pytest.param(job, (*path[:-1], f"{path[-1]}x"), path, GOOD, id=f"{'.'.join(path)}-misspelt-key")
        if schema.get("additionalProperties") is False:
            yield pytest.param(job, (*path, "zebra"), (*path, "zebra"), 1, id=f"{'.'.join(path)}-extra-key")
    yield pytest.param(GOOD, ("zebra",), ("zebra",), 1, id="extra-key")


def write(folder: Path, *, good: dict[str, Any], path: tuple[str, ...], instead_of: tuple[str, ...], value: Any) -> Path:
    """A job file that is `good` but for the value at `path`, which stands where `instead_of` stood."""
    job = copy.deepcopy(good)
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
    file = write(tmp_path, good=GOOD, path=("name",), instead_of=("name",), value="clicks")
    assert load_job(file, environment={}).source.on_bad_record.send_to == "clicks.bad"


@pytest.mark.parametrize(("good", "path", "instead_of", "value"), list(cases()))
def test_field_wrong_is_named_with_line_reason_and_fix(
    tmp_path: Path, good: dict[str, Any], path: tuple[str, ...], instead_of: tuple[str, ...], value: Any
) -> None:
    file = write(tmp_path, good=good, path=path, instead_of=instead_of, value=value)
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


@pytest.mark.parametrize("text", ["price >", "__import__('os')", "price > 0; True"])
def test_filter_that_is_no_expression_is_refused_at_its_line_with_a_fix(tmp_path: Path, text: str) -> None:
    file = write(tmp_path, good=GOOD, path=("transform", "filter"), instead_of=("transform", "filter"), value=text)
    with pytest.raises(SpecError, match="use columns, numbers, texts") as caught:
        load_job(file, environment={})
    assert caught.value.path == "transform.filter"
    assert file.read_text().splitlines()[caught.value.line - 1].strip().startswith("filter:")
