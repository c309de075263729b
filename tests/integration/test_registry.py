"""Avro by a schema registry, over real HTTP: evolution, what is unknown, what is broken, who may ask, and who does not answer."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dtrain.data import missing_schemas
from dtrain.data.block import Block
from dtrain.data.decode import decode
from dtrain.data.formats import reader_of
from dtrain.data.messages import ReadRows
from dtrain.data.registry import MOST_BYTES
from dtrain.data.schema import Schema
from dtrain.errors import AuthError, UnavailableError
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.sources import open_source
from tests.support.audit import audit_spec, times_trained
from tests.support.formats import AVRO, avro, format_of, row
from tests.support.kafka import Kafka
from tests.support.live import LiveJob
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
    where = {"url": registry.url, "timeout": 5, "wait": 0} | fields
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
    monkeypatch.setattr(missing_schemas, "ASK_AGAIN_S", 0.0)
    read = reader(registry)
    assert reasons(decoded(read, [message(3, 2)])) == [(0, "the registry has no schema 3")]
    registry.add(3, AVRO)
    assert ys(decoded(read, [message(3, 2)])) == [2]


def test_a_record_by_an_unknown_id_is_bad_and_its_id_is_not_asked_for_at_once_again(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_schemas, "ASK_AGAIN_S", 3600.0)
    read = reader(registry)
    for _ in range(2):
        block = decoded(read, [message(7, 1), message(3, 2), message(3, 3)])
        assert (ys(block), reasons(block)) == ([1], [(i, "the registry has no schema 3") for i in (1, 2)])
    assert registry.asked == [7, 3]


def test_schema_that_is_not_there_yet_is_waited_for_behind_the_rows_before_it(registry: RegistryServer) -> None:
    read, values = reader(registry, wait=60), [message(7, 1), message(3, 2), message(8, 3, NEWER), message(4, 4), message(3, 5)]
    assert ys(decoded(read, values)) == [1]
    assert registry.asked == [7, 3, 8, 4]  # whether the others are there is found out in the same minute
    for _ in range(2):
        with pytest.raises(UnavailableError, match="the registry has no schema 3 yet"):
            decoded(read, values[1:])
    registry.add(3, AVRO)
    assert ys(decoded(read, values)) == [1, 2, 3]
    registry.add(4, AVRO)
    assert ys(decoded(read, values)) == [1, 2, 3, 4, 5]


def test_schema_that_was_waited_for_in_vain_makes_its_messages_bad(registry: RegistryServer) -> None:
    read, deadline_s = reader(registry, wait=0.3), time.monotonic() + 60
    with pytest.raises(UnavailableError, match="no schema 3 yet"):
        decoded(read, [message(3, 1)])
    while True:
        assert time.monotonic() < deadline_s
        try:
            block = decoded(read, [message(3, 1), message(7, 2)])
            break
        except UnavailableError:
            time.sleep(0.05)
    assert (ys(block), reasons(block)) == ([2], [(0, "the registry has no schema 3")])


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


IDS: Mapping[str, Any] = {"type": "record", "name": "Id", "fields": [{"name": "id", "type": "long"}]}


def test_job_waits_for_a_schema_that_comes_late_and_what_was_bad_by_then_stays_bad(
    kafka: Kafka, registry: RegistryServer, tmp_path: Path
) -> None:
    """The registry is behind the topic: first for less than the job waits, then for longer."""
    topic, folder = kafka.new_topic(), tmp_path / "job"

    def write(schema_id: int, numbers: range) -> None:
        head = b"\0" + schema_id.to_bytes(4, "big")
        kafka.produce(topic, 0, [head + avro([{"id": number}], IDS) for number in numbers])

    def job_that_waits(wait: int) -> LiveJob:
        format_ = {"type": "avro", "registry": {"url": registry.url, "wait": wait}}
        source = {"end": "never", "format": format_, "on_bad_record": {"send_to": f"{topic}-bad", "budget": 0.5}}
        spec = audit_spec(topic=topic, bootstrap=kafka.bootstrap, folder=folder, num_ids=60, ends={}, source=source)
        return LiveJob(spec, folder=folder, source=lambda: open_source(spec))

    registry.add(11, IDS)
    for schema_id, first in ((11, 0), (12, 10), (11, 20)):
        write(schema_id, range(first, first + 10))
    job = job_that_waits(600).start()
    job.wait_for_rows(10)
    job.wait(lambda _: bool(job.told("the registry has no schema 12 yet")))
    assert job.status.rows_trained == 10
    registry.add(12, IDS)
    job.wait_for_rows(30)
    job.stop()
    assert job.status.rows_rejected == 0
    for schema_id, first in ((13, 30), (11, 40)):
        write(schema_id, range(first, first + 10))
    job = job_that_waits(0).start()
    job.wait_for_rows(40)
    job.stop()
    assert job.status.rows_rejected == 10
    assert job_that_waits(600).replay().rows == 40
    registry.add(13, IDS)
    assert times_trained(job.store) == [1] * 30 + [0] * 10 + [1] * 10 + [0] * 10
    verdict = job.replay()
    assert (verdict.rows, verdict.audit.in_topic) == (40, 40)
    job = job_that_waits(0).start()
    write(13, range(50, 60))
    job.wait_for_rows(50)
    job.stop()
    assert job.replay().rows == 50
