"""`source.format`: the words, the sections, what is read when a job is submitted, and what is refused with which fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from dtrain.errors import SpecError
from dtrain.spec.formats import AvroFormat, ProtobufFormat, RawFormat
from dtrain.spec.job import JobSpec
from dtrain.spec.load import load_job
from tests.support.formats import AVRO, descriptors

REGISTRY = {"url": "https://registry:8081"}


def load(folder: Path, form: Any) -> JobSpec:
    source = {"topic": "clicks", "bootstrap": "localhost:9092", "format": form}
    job = {"name": "clicks", "task": "clicks:Task", "source": source, "checkpoint": {"to": "checkpoints"}}
    (folder / "clicks.py").touch()
    (folder / "click.avsc").write_text(json.dumps(AVRO))
    (folder / "click.desc").write_bytes(descriptors())
    (folder / "list.avsc").write_text("[]")
    YAML().dump(job, folder / "job.yaml")
    return load_job(folder / "job.yaml", environment={})


@pytest.mark.parametrize("form", ["arrow", "json"])
def test_a_format_without_options_is_a_word(tmp_path: Path, form: str) -> None:
    assert load(tmp_path, form).source.format == form


@pytest.mark.parametrize("definition", ["click.avsc", AVRO])
def test_an_avro_schema_becomes_a_part_of_the_job(tmp_path: Path, definition: Any) -> None:
    spec = load(tmp_path, {"type": "avro", "definition": definition})
    assert isinstance(spec.source.format, AvroFormat)
    assert spec.source.format.definition == AVRO
    assert JobSpec.from_json(spec.to_json()) == spec


def test_descriptors_become_a_part_of_the_job(tmp_path: Path) -> None:
    spec = load(tmp_path, {"type": "protobuf", "descriptors": "click.desc", "message": "shop.Click"})
    assert isinstance(spec.source.format, ProtobufFormat)
    assert spec.source.format.descriptor_bytes == descriptors()
    assert JobSpec.from_json(spec.to_json()) == spec


def test_a_registry_is_named_with_references_whose_files_are_the_job_files_neighbours(tmp_path: Path) -> None:
    login = {"username": {"env": "USER_NAME"}, "password": {"file": "password"}}
    spec = load(tmp_path, {"type": "avro", "registry": REGISTRY | login | {"ca": "ca.pem", "timeout": "200ms"}})
    assert isinstance(spec.source.format, AvroFormat)
    registry = spec.source.format.registry
    assert registry != "none"
    assert registry.password != "none"
    assert (registry.password.file, registry.ca, registry.timeout) == (
        str(tmp_path / "password"),
        str(tmp_path / "ca.pem"),
        0.2,
    )
    assert JobSpec.from_json(spec.to_json()) == spec


def test_a_decoder_is_a_function_in_the_code(tmp_path: Path) -> None:
    spec = load(tmp_path, {"type": "raw", "decoder": "clicks:decode"})
    assert spec.source.format == RawFormat(type="raw", decoder="clicks:decode")


@pytest.mark.parametrize(
    ("form", "path", "reason", "fix"),
    [
        ("avro", "source.format", "avro needs more than its name", "write {type: avro, definition: record.avsc}"),
        ("protobuf", "source.format", "protobuf needs more than its name", "write {type: protobuf, descriptors"),
        ("raw", "source.format", "raw needs more than its name", "write {type: raw, decoder"),
        ("csv", "source.format", "CSV messages are not supported", "arrow, json"),
        ("parquet", "source.format", "Parquet messages are not supported", "arrow, json"),
        ("yaml", "source.format", '"yaml" is not possible here', "arrow, json"),
        ("jsno", "source.format", '"jsno" is not known', "did you mean json?"),
        ({"type": "json"}, "source.format.type", "json has no options", "write `format: json`"),
        ({"type": "parquet"}, "source.format.type", "Parquet messages are not supported", "arrow, json"),
        ({"type": "yaml"}, "source.format.type", '"yaml" is not known', "write avro, protobuf, raw"),
        ({"typo": "avro"}, "source.format.typo", "is not a field", "did you mean `type`?"),
        ({"avro": {}}, "source.format.type", "is missing", "one of avro, protobuf, raw"),
        ({"type": "avro"}, "source.format.definition", "is missing, and so is `registry`", "add `definition"),
        ({"type": "avro", "definition": "none.avsc"}, "source.format.definition", "none.avsc cannot be read", "name a file"),
        ({"type": "avro", "definition": "clicks.py"}, "source.format.definition", "is not JSON", "Avro schema's file"),
        ({"type": "avro", "definition": "list.avsc"}, "source.format.definition", "is not a record's schema", "another"),
        ({"type": "avro", "regsitry": REGISTRY}, "source.format.regsitry", "is not a field", "did you mean `registry`?"),
        ({"type": "avro", "registry": {}}, "source.format.registry.url", "is missing", "add `url"),
        ({"type": "avro", "registry": {"url": "registry"}}, "source.format.registry.url", "is not an address", "https://"),
        (
            {"type": "avro", "registry": {"url": "https://me:hush@registry"}},
            "source.format.registry.url",
            "holds credentials",
            "references",
        ),
        (
            {"type": "avro", "registry": REGISTRY | {"token": "hush"}},
            "source.format.registry.token",
            "has to say where the value is",
            "write {env: NAME}",
        ),
        (
            {"type": "avro", "registry": REGISTRY | {"username": {"env": "A"}}},
            "source.format.registry.password",
            "is missing beside `username`",
            "add `password",
        ),
        (
            {"type": "avro", "registry": {"url": "http://registry", "token": {"env": "A"}}},
            "source.format.registry.url",
            "would send the secret in the clear",
            "https://",
        ),
        ({"type": "raw"}, "source.format.decoder", "is missing", "add `decoder"),
        ({"type": "raw", "decoder": "decode"}, "source.format.decoder", '"decode" is not possible here', "module:function"),
        ({"type": "raw", "decoder": "none:decode"}, "source.format.decoder", "there is no module none", "with none.py"),
        ({"type": "protobuf", "descriptors": "click.desc"}, "source.format.message", "is missing", "add `message"),
        (
            {"type": "protobuf", "descriptors": "none.desc", "message": "shop.Click"},
            "source.format.descriptors",
            "none.desc cannot be read",
            "name a file",
        ),
    ],
)
def test_a_format_that_is_none_is_refused_with_its_place_and_a_fix(
    tmp_path: Path, form: Any, path: str, reason: str, fix: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, form)
    assert (caught.value.path, caught.value.others) == (path, ())
    assert reason in caught.value.reason
    assert fix in caught.value.fix
    assert caught.value.line >= 4
    assert "hush" not in str(caught.value)
