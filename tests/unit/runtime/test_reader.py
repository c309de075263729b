"""What a reader tells, without Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from dtrain.errors import AuthError
from dtrain.policy.blocking import Size
from dtrain.runtime.messages import Following
from dtrain.runtime.reader import Reader
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.memory import MemorySource, MemoryTopic
from tests.support.audit import audit_spec, id_messages

PARTITIONS = [Partition("ids", 0), Partition("ids", 1)]


@pytest.fixture
def topic() -> MemoryTopic:
    return MemoryTopic("ids", partitions=2)


@pytest.fixture
def reader(tmp_path: Path, topic: MemoryTopic) -> Reader:
    spec = audit_spec(topic="ids", bootstrap="nowhere:1", folder=tmp_path, num_ids=10, ends={0: 1, 1: 1})
    reader = Reader(spec.to_json(), str(tmp_path / "reader.jsonl"))
    reader._source = MemorySource(spec.source, {"ids": topic})
    return reader


def follow(reader: Reader, topic: MemoryTopic, *, epoch: int) -> None:
    identity = {"topic_ids": {"ids": topic.topic_id}, "leader_epochs": {}}
    positions = dict.fromkeys(PARTITIONS, Position(0))
    reader.follow(Following(epoch, positions, ends=None, schema={"id": "int64"}, identity=identity, marks={}))


def ends(reader: Reader, *, epoch: int) -> Mapping[Partition, int]:
    report, _ = reader.next(epoch, Size(100, 1 << 20), frozenset())
    return report.end_offsets


def test_ends_are_reported_once_and_all_of_them_to_whoever_follows_anew(reader: Reader, topic: MemoryTopic) -> None:
    follow(reader, topic, epoch=1)
    assert ends(reader, epoch=1) == {PARTITIONS[0]: 0, PARTITIONS[1]: 0}
    topic.append(next(id_messages(5, rows=5)), partition=1)
    assert ends(reader, epoch=1) == {PARTITIONS[1]: 1}
    assert ends(reader, epoch=1) == {}
    follow(reader, topic, epoch=2)
    assert ends(reader, epoch=2) == {PARTITIONS[0]: 0, PARTITIONS[1]: 1}


def test_positions_that_cannot_be_given_back_are_in_the_log(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(positions: object, *, group: str) -> None:
        raise AuthError(f"Kafka refuses: {group}")

    monkeypatch.setattr(reader._source, "commit", refuse)
    reader.commit({PARTITIONS[0]: Position(1)}, group="dtrain-job")
    lines = [json.loads(line) for line in (tmp_path / "reader.jsonl").read_text().splitlines()]
    assert [(line["event"], line["error"]) for line in lines] == [("positions are not given back", "Kafka refuses: dtrain-job")]
