"""Bad records, repaired, back to their topic: each once, whole rows alone, and only what the job can decode."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pytest

from dtrain.data.schema import Schema
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition
from dtrain.steplog.ranges import RowRange
from dtrain.stream.log import VALUE_IN, Letter
from dtrain.stream.memory import MemorySource, MemoryTopic
from dtrain.stream.redrive import BadRecord, Redrive, Repair, bad_records
from tests.support.messages import arrow

SCHEMA = Schema({"y": "int64"})


class Topic:
    """A topic with its bad records in "bad"."""

    def __init__(self, values: Sequence[bytes | None], *, form: str) -> None:
        self.topics = {"t": MemoryTopic("t", partitions=2)}
        for value in values:
            self.topics["t"].append(value, partition=1, key=b"k")
        spec = SourceSpec(topic="t", bootstrap="h:1", format=form, start="earliest", end="latest")  # type: ignore[arg-type]
        self.source = MemorySource(spec, self.topics)
        self.flush()

    def flush(self, *, job_id: str = "job") -> None:
        """The letters are written, as at a checkpoint."""
        feed = self.source.follow(self.source.resolve_start(), schema=SCHEMA, ends=self.source.resolve_end())
        ranges: list[RowRange] = [block.meta.range_to_end(block.meta.start) for block in feed.poll(max_wait_s=0)]
        self.source.send_rejects(ranges, to_topic="bad", job_id=job_id)

    def redrive(self, repair: Repair, *, is_dry: bool = False) -> list[tuple[str, str, str]]:
        log = self.source.log
        redrive = Redrive(log, self.source, SCHEMA, job_id="job", dead_letters="bad", repair=repair, is_dry=is_dry)
        return [(str(fate.record), fate.outcome, fate.reason) for fate in redrive.run()]

    def sent(self) -> list[Letter]:
        return self.source.log.sent.get("t", [])


def fixed(record: BadRecord) -> bytes:
    """Quotes are taken off."""
    return json.dumps({"y": int(json.loads(record.value or b"")["y"])}).encode()


def test_repaired_record_goes_to_its_partition_once() -> None:
    topic = Topic([b'{"y": 1}', b'{"y": "2"}'], form="json")
    assert topic.redrive(fixed) == [("t:1:1:0", "sent", "")]
    assert [(letter.key, letter.value, letter.partition) for letter in topic.sent()] == [(b"k", b'{"y": 2}', 1)]
    assert dict(topic.sent()[0].headers) == {"dtrain-redriven": b"t:1:1:0", "dtrain-job": b"job"}
    assert topic.redrive(fixed) == []
    topic.source.log.sent["bad"].append(topic.source.log.sent["bad"][0])  # letters are at least once
    assert topic.redrive(fixed) == []


def test_dry_run_sends_and_marks_nothing() -> None:
    topic = Topic([b'{"y": "2"}'], form="json")
    for _ in range(2):
        assert topic.redrive(fixed, is_dry=True) == [("t:1:0:0", "sent", "")]
    assert topic.sent() == []
    assert topic.redrive(fixed) == [("t:1:0:0", "sent", "")]


def test_letters_of_other_jobs_are_left_alone() -> None:
    topic = Topic([b'{"y": "2"}'], form="json")
    topic.source.log.sent.clear()
    topic.flush(job_id="other")
    assert topic.redrive(fixed) == []


def test_what_is_not_repaired_is_said_and_tried_again() -> None:
    topic = Topic([b"?", None, b'{"y": null}', b'{"y": "2"}', b'{"y": "x"}', b'{"y": []}'], form="json")

    def repair(record: BadRecord) -> bytes | None:
        value = record.value or b""
        return None if value == b"?" else 3 if b"[]" in value else value if b"null" in value else fixed(record)  # type: ignore[return-value]

    expected = [
        ("t:1:0:0", "left", "the repair gave nothing for it"),
        ("t:1:2:0", "refused", "still bad: column 'y' is null"),
        ("t:1:4:0", "refused", "the repair raised ValueError: invalid literal for int() with base 10: 'x'"),
        ("t:1:5:0", "refused", "the repair gave int, not bytes or a pyarrow.Table"),
    ]
    assert topic.redrive(repair) == [*expected[:2], ("t:1:3:0", "sent", ""), *expected[2:]]
    assert topic.redrive(repair) == expected


def with_zeros(record: BadRecord) -> pa.Table:
    return pa.table({"y": record.table()["y"].fill_null(0)})


def test_bad_rows_of_a_message_go_back_without_its_good_ones() -> None:
    topic = Topic([arrow({"y": pa.array([1, None, 3, None])})], form="arrow")
    whole = topic.redrive(lambda record: arrow({"y": pa.array([1, 0, 3, 0])}))
    assert whole == [("t:1:0:1,3", "refused", "4 rows in place of the 2 bad ones of its 4: send back the bad rows alone")]
    assert topic.redrive(with_zeros) == [("t:1:0:1,3", "sent", "")]
    (letter,) = topic.sent()
    assert pa.ipc.open_stream(letter.value).read_all().to_pydict() == {"y": [0, 0]}
    assert topic.redrive(with_zeros) == []


def test_message_that_is_bad_as_a_whole_goes_back_with_all_of_its_rows() -> None:
    topic = Topic([arrow({"y": ["1", "2", "3"]})], form="arrow")
    assert topic.redrive(lambda record: pa.table({"y": record.table()["y"].cast(pa.int64())})) == [("t:1:0:0", "sent", "")]
    assert pa.ipc.open_stream(topic.sent()[0].value).read_all()["y"].to_pylist() == [1, 2, 3]


def test_rows_of_a_record_whose_letters_came_apart_are_one_record() -> None:
    def letter(row: int, *more: tuple[str, bytes]) -> Letter:
        headers = [("dtrain-job", b"job"), ("dtrain-reason", b"r%d" % row), *more]
        return Letter(b"t:0:5:%d" % row, b"v", headers)

    found = bad_records([letter(7), letter(3), letter(7), letter(9, ("dtrain-redriven", b"1")), letter(9)], job_id="job")
    assert found == [BadRecord(Partition("t", 0), 5, (3, 7), ("r3", "r7"), None, b"v")]


def test_value_of_a_record_is_found_in_whichever_letter_has_it() -> None:
    """Their partitions are read one after another; and a run that was killed may have marked that one alone."""

    def letter(row: int, value: bytes | None, *more: tuple[str, bytes]) -> Letter:
        return Letter(b"t:0:5:%d" % row, value, [("dtrain-job", b"job"), ("dtrain-reason", b"r"), *more])

    said = [letter(7, b"", (VALUE_IN, b"t:0:5:3")), letter(3, b"v"), letter(3, None, ("dtrain-redriven", b"1"))]
    assert bad_records(said, job_id="job") == [BadRecord(Partition("t", 0), 5, (7,), ("r",), None, b"v")]
    assert [record.value for record in bad_records(said[:1], job_id="job")] == [None]


def test_letters_of_many_bad_rows_have_each_value_once_and_are_sent_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    value = arrow({"y": pa.array([None, 1, None, 2, None] * 200, pa.int64())})
    topic = Topic([], form="arrow")
    sent: list[int] = []
    send = topic.source.log.send

    def noted(letters: Sequence[Letter], *, to_topic: str) -> None:
        sent.append(sum(letter.num_bytes for letter in letters))
        send(letters, to_topic=to_topic)

    monkeypatch.setattr(topic.source.log, "send", noted)
    monkeypatch.setattr("dtrain.stream.source.SEND_BYTES", 100_000)
    for _ in range(10):
        topic.topics["t"].append(value, partition=1)
    topic.flush()
    letters = topic.source.log.sent["bad"]
    assert [len(letter.value or b"") for letter in letters] == ([len(value)] + [0] * 599) * 10
    assert len({letter.key for letter in letters}) == 6000
    assert len(sent) > 10
    assert max(sent) < 100_000 + letters[0].num_bytes
    assert topic.redrive(with_zeros) == [
        (f"t:1:{offset}:{','.join(str(row) for row in range(1000) if row % 5 in (0, 2, 4))}", "sent", "")
        for offset in range(10)
    ]
