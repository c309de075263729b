"""Avro by a schema registry, over real HTTP: evolution, what is unknown, what is broken, who may ask, and who does not answer."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dtrain.data import avro_messages
from dtrain.data.block import Block
from dtrain.data.decode import decode
from dtrain.data.formats import reader_of
from dtrain.data.messages import ReadRows
from dtrain.data.registry import MOST_BYTES
from dtrain.data.schema import Schema
from dtrain.errors import AuthError, UnavailableError
from dtrain.steplog.positions import Partition, Position
from tests.support.formats import AVRO, avro, format_of, row
from tests.support.messages import records
from tests.support.registry import RegistryServer
from tests.unit.data.test_formats import decoded, ys

NEWER: Mapping[str, Any] = {
    "type": "record",
    "name": "shop.Click",
    "fields": [
        {"name": "y", "type": "int"},
        {"name": "price", "type": "double"},
        {"name": "x", "type": {"type": "array", "items": "double"}},
    ],
}


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        server.add(7, AVRO)
        server.add(8, NEWER)
        yield server


def reader(registry: RegistryServer, *, definition: Any = "", **fields: Any) -> ReadRows:
    where = {"url": registry.url, "timeout": 5} | fields
    return reader_of(format_of({"type": "avro", "definition": definition, "registry": where}))


def message(schema_id: int, number: int | None, definition: Mapping[str, Any] = AVRO) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + avro([row(number) | {"price": 2.0}], definition)


def reasons(block: Block) -> list[tuple[int, str]]:
    return [(reject.offset, reject.reason) for reject in block.meta.rejects]


def test_records_of_several_schemas_become_rows_by_name(registry: RegistryServer) -> None:
    read = reader(registry)
    values = [message(7 + i % 2, i, (AVRO, NEWER)[i % 2]) for i in range(100)]
    block = decoded(read, values)
    assert (ys(block), block.meta.rejects) == (list(range(100)), ())
    decoded(read, values)
    assert sorted(registry.asked) == [7, 8]


def test_records_are_read_as_the_jobs_schema_by_avros_rules(registry: RegistryServer) -> None:
    """A field is renamed by an alias, one widened, one filled in."""
    fields = [
        {"name": "label", "type": "long", "aliases": ["y"]},
        {"name": "x", "type": {"type": "array", "items": "double"}},
        {"name": "weight", "type": "double", "default": 0.5},
    ]
    registry.add(9, {"type": "record", "name": "shop.Click", "fields": NEWER["fields"][:1]})
    schema = Schema({"label": "int64", "weight": "float32"})
    read = reader(registry, definition={"type": "record", "name": "shop.Click", "fields": fields})
    values = [message(8, 1, NEWER), message(9, 2, {"type": "record", "name": "shop.Click", "fields": NEWER["fields"][:1]})]
    block = decode(records(values), partition=Partition("t", 0), start=Position(0), end=Position(2), schema=schema, read=read)
    assert block.batch.to_pydict() == {"label": [1], "weight": [0.5]}
    assert reasons(block) == [(1, "not an Avro record that can be read by the job's schema")]


RECURSIVE = {
    "type": "record",
    "name": "List",
    "fields": [{"name": "y", "type": "long"}, {"name": "next", "type": ["null", "List"]}],
}
NULLS = {"type": "record", "name": "R", "fields": [{"name": "n", "type": {"type": "array", "items": "null"}}]}


def doubled(depth: int) -> dict[str, Any]:
    """A record of 2^depth nulls, in few words."""
    node: dict[str, Any] = {"type": "record", "name": f"R{depth}", "fields": [{"name": "a", "type": "null"}]}
    for level in reversed(range(depth)):
        fields = [{"name": "a", "type": node}, {"name": "b", "type": f"R{level + 1}"}]
        node = {"type": "record", "name": f"R{level}", "fields": fields}
    return node


def nested(depth: int) -> dict[str, Any]:
    node: Any = "long"
    for _ in range(depth):
        node = {"type": "array", "items": node}
    return {"type": "record", "name": "R", "fields": [{"name": "y", "type": node}]}


@pytest.mark.parametrize(
    ("definition", "more", "reason"),
    [
        ("{", {}, "schema 9 is not JSON"),
        ("[" * 100_000, {}, "schema 9 is not JSON"),
        ({"type": "nothing"}, {}, "schema 9: not an Avro schema"),
        ('"long"', {}, "schema 9: not the schema of a record"),
        (AVRO, {"schemaType": "PROTOBUF"}, "schema 9 is not of Avro"),
        (AVRO, {"references": [{"name": "a"}]}, "schema 9 refers to others, which is not supported"),
        (RECURSIVE, {}, "schema 9: type List holds itself, which is not supported"),
        (NULLS, {}, "schema 9: an array of items that take no bytes is not supported"),
        (doubled(40), {}, "schema 9: more than 100,000 values in a record are not supported"),
        (nested(100), {}, "schema 9: types nested more than 64 deep are not supported"),
        (nested(900), {}, "schema 9: types nested more than 64 deep are not supported"),
        ({"type": "record", "name": "R", "fields": [{"name": "x", "type": "long"}]}, {}, "column 'x': int64 is not float32[2]"),
    ],
)
def test_records_by_a_schema_that_is_none_or_not_safe_are_bad(
    registry: RegistryServer, definition: Any, more: dict[str, Any], reason: str
) -> None:
    registry.add(9, definition, **more)
    block = decoded(reader(registry), [message(7, 1), b"\0\0\0\0\x09" + bytes(20), message(7, 2)])
    assert (ys(block), reasons(block)) == ([1, 2], [(1, reason)])


@pytest.mark.parametrize("value", [b"", b"\0", b"\0\0\0\0", b"\x01\0\0\0\x07\0\0\0", b'{"y": 1}'])
def test_a_record_without_a_schemas_id_is_bad(registry: RegistryServer, value: bytes) -> None:
    block = decoded(reader(registry), [message(7, 1), value])
    assert reasons(block) == [(1, "does not begin with a byte 0 and a schema's id")]


def test_a_schema_that_is_missing_for_a_moment_is_asked_for_again(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avro_messages, "MISSING_S", 0.0)
    read = reader(registry)
    assert reasons(decoded(read, [message(3, 2)])) == [(0, "the registry has no schema 3")]
    registry.add(3, AVRO)
    assert ys(decoded(read, [message(3, 2)])) == [2]


def test_a_record_by_an_unknown_id_is_bad_and_its_id_is_not_asked_for_at_once_again(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avro_messages, "MISSING_S", 3600.0)
    read = reader(registry)
    for _ in range(2):
        block = decoded(read, [message(7, 1), message(3, 2), message(3, 3)])
        assert (ys(block), reasons(block)) == ([1], [(i, "the registry has no schema 3") for i in (1, 2)])
    assert registry.asked == [7, 3]


@pytest.mark.parametrize("status", [302, 429, 500, 503])
def test_a_registry_that_is_not_well_is_asked_three_times_and_then_waited_for(registry: RegistryServer, status: int) -> None:
    read = reader(registry)
    registry.status = status
    with pytest.raises(UnavailableError, match=f"answers {status}"):
        decoded(read, [message(7, 1)])
    registry.status = 0
    assert ys(decoded(read, [message(7, 1)])) == [1]


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b"<html>", b" " * (MOST_BYTES + 1)])
def test_an_answer_that_is_no_registrys_is_waited_out(registry: RegistryServer, answer: bytes) -> None:
    registry.answer = answer
    with pytest.raises(UnavailableError, match=r"does not answer as a registry|more than 4 MiB"):
        decoded(reader(registry), [message(7, 1)])


def test_a_registry_that_is_late_or_gone_is_waited_for(registry: RegistryServer) -> None:
    read = reader(registry, timeout=0.5)
    registry.delay_s = 2
    begin = time.monotonic()
    with pytest.raises(UnavailableError, match="ReadTimeout"):
        decoded(read, [message(7, 1)])
    assert time.monotonic() - begin < 10
    registry.delay_s = 0
    assert ys(decoded(read, [message(7, 1)])) == [1]


def test_nobody_at_the_address_is_waited_for() -> None:
    with RegistryServer() as server:
        read, port = reader(server), server.port
    with pytest.raises(UnavailableError, match="ConnectError"):
        decoded(read, [message(7, 1)])
    with RegistryServer(port=port) as server:
        server.add(7, AVRO)
        assert ys(decoded(read, [message(7, 1)])) == [1]


def test_a_login_is_made_by_references_alone(
    registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("TEST_REGISTRY_USER", "user")
    (tmp_path / "password").write_text("hush hush\n")
    login = {"username": {"env": "TEST_REGISTRY_USER"}, "password": {"file": str(tmp_path / "password")}}
    registry.login = "Basic " + base64.b64encode(b"user:hush hush").decode()
    assert ys(decoded(reader(registry, **login), [message(7, 1)])) == [1]
    registry.login = "Bearer hush hush"
    assert ys(decoded(reader(registry, token={"file": str(tmp_path / "password")}), [message(7, 1)])) == [1]
    assert "hush" not in caplog.text
    assert registry.login.removeprefix("Bearer ") not in caplog.text


def test_a_refused_login_is_no_bad_record(registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.login = "Bearer right"
    monkeypatch.setenv("TEST_REGISTRY_TOKEN", "wrong")
    with pytest.raises(AuthError, match=r"refuses \(401\)") as found:
        decoded(reader(registry, token={"env": "TEST_REGISTRY_TOKEN"}), [message(7, 1)])
    assert "wrong" not in str(found.value)
    with pytest.raises(AuthError, match="TEST_REGISTRY_NOTHING"):
        decoded(reader(registry, token={"env": "TEST_REGISTRY_NOTHING"}), [message(7, 1)])


def test_any_number_of_unknown_ids_are_kept_in_bounds(registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.data.avro_messages._KNOWN_SCHEMAS", 10)
    read: Any = reader(registry)
    block = decoded(read, [message(100 + i, i) for i in range(50)] + [message(7, 1)])
    assert (len(block.meta.rejects), ys(block)) == (50, [1])
    assert len(read._writers) <= 10
