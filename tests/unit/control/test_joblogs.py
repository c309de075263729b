from __future__ import annotations

import json
from pathlib import Path

import pytest

from dtrain.control.joblogs import JobLogs, parse
from dtrain.rpc.convert import line_from_message, line_to_message


def write(path: Path, *times: int, end: str = "\n") -> None:
    lines = [json.dumps({"timestamp": f"T{time:03d}", "level": "info", "event": f"{path.stem} {time}"}) for time in times]
    with path.open("a") as file:
        file.write("\n".join(lines) + end)


def messages(logs: JobLogs, limit: int = 1_000) -> list[str]:
    return [line.message for line in logs.take(limit)]


def test_lines_of_all_files_come_in_order_of_time(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 1, 4, 5)
    write(tmp_path / "b.jsonl", 2, 3, 6)
    assert messages(JobLogs(tmp_path)) == ["a 1", "b 2", "b 3", "a 4", "a 5", "b 6"]


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_lines_come_once_however_many_are_taken_at_a_time(tmp_path: Path, limit: int) -> None:
    write(tmp_path / "a.jsonl", *range(7))
    logs = JobLogs(tmp_path)
    found = [messages(logs, limit) for _ in range(9)]
    assert [line for part in found for line in part] == [f"a {number}" for number in range(7)]


@pytest.mark.parametrize("tail", [1, 2, 5, 6, 7, 99])
@pytest.mark.parametrize("end", ["\n", '\n{"event": "half'])
def test_tail_gives_the_last_whole_lines_of_all(tmp_path: Path, tail: int, end: str) -> None:
    write(tmp_path / "a.jsonl", 1, 3, 5, end=end)
    write(tmp_path / "b.jsonl", 2, 4, 6, end=end)
    everything = ["a 1", "b 2", "a 3", "b 4", "a 5", "b 6"]
    assert messages(JobLogs(tmp_path, tail=tail)) == everything[-tail:]


def test_tail_of_a_file_of_many_blocks_is_exact(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *range(5_000))
    assert messages(JobLogs(tmp_path, tail=2_345), 5_000) == [f"a {number}" for number in range(2_655, 5_000)]


def test_lines_and_files_added_later_follow(tmp_path: Path) -> None:
    logs = JobLogs(tmp_path / "job", tail=3)
    assert messages(logs) == []
    (tmp_path / "job").mkdir()
    write(tmp_path / "job" / "a.jsonl", 1, end="\n{")
    assert messages(logs) == ["a 1"]
    with (tmp_path / "job" / "a.jsonl").open("a") as file:
        file.write('"event": "whole now"}\n')
    write(tmp_path / "job" / "b.jsonl", 2)
    assert sorted(messages(logs)) == ["b 2", "whole now"]


def test_line_that_is_no_json_object_is_all_message(tmp_path: Path) -> None:
    for text in ("Traceback (most recent call last):", "[1]", "{", "[" * 100_000):
        assert parse(text, source="trainer-0").message == text[:4_096]


def test_line_without_a_time_stays_behind_the_line_before_it(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 5, end="\nnot json\n")
    write(tmp_path / "b.jsonl", 1, 6)
    assert messages(JobLogs(tmp_path)) == ["b 1", "a 5", "not json", "b 6"]


def test_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("password\n")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "a.jsonl").symlink_to(tmp_path / "secret")
    assert messages(JobLogs(tmp_path / "job")) == []


def test_line_with_half_a_character_can_be_sent() -> None:
    line = parse('{"event": "a \\ud800", "\\udcff": ["\\ud800"], "level": "info"}', source="trainer-0")
    assert line.message == "a ?"
    assert line_from_message(line_to_message(line)) == line
