"""Schemas that a registry has not: how long each is waited for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dtrain.data import missing_schemas
from dtrain.data.block import RawRecord
from dtrain.data.messages import Rows, settled
from dtrain.data.missing_schemas import ASK_AGAIN_S, MissingSchemas, may_pass, no_schema
from dtrain.data.schema import Schema
from tests.support.messages import records


def test_id_is_waited_for_from_the_first_time_on() -> None:
    missing = MissingSchemas(wait_s=60)
    assert [missing.missed(3, now_s=now_s) for now_s in (100, 130, 159, 160, 200)] == [True, True, True, False, False]
    assert missing.missed(4, now_s=200)


def test_id_that_was_given_up_is_asked_for_again_after_a_while() -> None:
    missing = MissingSchemas(wait_s=60)
    assert not missing.is_given_up(3, now_s=0)
    missing.missed(3, now_s=0)
    assert not missing.is_given_up(3, now_s=59)
    missing.missed(3, now_s=60)
    assert missing.is_given_up(3, now_s=60)
    assert not missing.is_given_up(3, now_s=60 + ASK_AGAIN_S)


def test_number_of_ids_that_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing_schemas, "MOST", 10)
    missing = MissingSchemas(wait_s=60)
    for schema_id in range(50):
        missing.missed(schema_id, now_s=0)
    assert len(missing._known) == 10
    assert not missing.missed(49, now_s=60)


def test_reason_tells_whether_time_may_change_it() -> None:
    assert may_pass(no_schema(3))
    assert not may_pass("schema 3 is not of Avro")


@pytest.mark.parametrize("num_read", [1, 2, 3, 9])
def test_records_whose_fate_is_settled_are_bad_whatever_they_are_read_as(num_read: int) -> None:
    def read(some: Sequence[RawRecord], schema: Schema) -> Rows:
        given.append([record.offset for record in some])
        rows = Rows()
        for record in some[:num_read]:
            rows.add_bad(f"read {record.offset}")
        return rows

    given: list[list[int]] = []
    rows = settled(read, {11: "log", 12: "log", 14: "log"})(records([b""] * 5, first=10), Schema({"y": "int64"}))
    expected = ["read 10", "log", "log", "read 13", "log"][: {1: 3}.get(num_read, 5)]
    assert given == [[10, 13]]
    assert rows.raw_rows == [1] * len(expected)
    assert [rows.rejects[place, 0] for place in range(len(expected))] == expected
