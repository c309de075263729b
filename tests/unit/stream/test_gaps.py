from __future__ import annotations

import pytest

from dtrain.data.schema import Schema
from dtrain.errors import DataLossError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.moves import Move, moved
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.log import Identity
from dtrain.stream.memory import MemorySource, MemoryTopic
from tests.support.messages import json_object

SCHEMA = Schema({"y": "int64"})
FIRST = Partition("t", 0)


def test_record_that_compaction_took_from_under_a_position_is_a_loss_of_its_other_rows() -> None:
    topic = MemoryTopic("t")
    for number in range(5):
        topic.append(json_object(y=number))
    source = MemorySource(SourceSpec(topic="t", bootstrap="memory:1", format="json"), {"t": topic})
    identity, position = source.identify(), Position(2, 3)
    source.follow({FIRST: position}, schema=SCHEMA, ends=None, identity=identity)
    del topic.records[FIRST][2]
    with pytest.raises(DataLossError, match="t:0: the record at offset 2 is gone, and its rows from 3 on are not trained"):
        source.follow({FIRST: position}, schema=SCHEMA, ends=None, identity=identity)
    change = source.gaps({FIRST: position}, ends=None, identity=identity, marks={})
    assert change.moves == (Move(FIRST, position, Position(3), "deleted"),)


def test_topic_that_was_given_up_for_gone_and_comes_back_is_no_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker leaves out what one is not allowed to see. All of it was trained: it must not be again."""
    monkeypatch.setattr("dtrain.stream.losses.GRACE_S", 0.0)
    topics = {name: MemoryTopic(name) for name in ("a", "b")}
    for topic in topics.values():
        topic.append(json_object(y=1))
    source = MemorySource(SourceSpec(pattern="a|b", bootstrap="memory:1", format="json"), topics)
    identity = source.identify()
    positions = {Partition(name, 0): Position(1) for name in ("a", "b")}
    hidden = topics.pop("b")
    change = source.gaps(positions, ends=None, identity=identity, marks={})
    assert change.moves == (Move(Partition("b", 0), Position(1), None, "gone"),)
    topics["b"] = hidden
    known = Identity.from_json(identity.to_json(), later=dict(change.topics))
    assert source.discover(moved(positions, change.moves), identity=known).moves == ()
