from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from examples.messages import Message, of_rows
from examples.steplog import places, steps

MESSAGES = [Message(number % 2, b"", num_rows=3) for number in range(4)]  # rows 0-2 and 6-8 in partition 0, the others in 1


def manifest(folder: Path, entries: list[dict[str, object]], *, digest: str = "") -> Path:
    content = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    digest = digest or hashlib.sha256(content).hexdigest()
    for name in ("manifests", "segments"):
        (folder / name).mkdir()
    (folder / "segments" / f"{digest}.jsonl").write_bytes(content)
    path = folder / "manifests" / "1.json"
    path.write_text(json.dumps({"progress": {"step": 1, "segments": [{"sha256": digest}]}}))
    return path


@pytest.mark.parametrize(
    ("ranges", "rows"),
    [
        ([["t:0", 0, 0, 1, 0]], [0, 1, 2]),
        ([["t:0", 0, 0, 2, 0]], [0, 1, 2, 6, 7, 8]),
        ([["t:1", 0, 0, 0, 2], ["t:0", 0, 2, 1, 1]], [3, 4, 2, 6]),
        ([["t:1", 0, 2, 1, 2]], [5, 9, 10]),
        ([["t:1", 1, 1, 1, 2]], [10]),
    ],
)
def test_steps_are_the_rows_of_their_ranges_in_order(tmp_path: Path, ranges: list[object], rows: list[int]) -> None:
    path = manifest(tmp_path, [{"kind": "checkpoint", "ranges": []}, {"kind": "data", "ranges": ranges}])
    assert [list(step) for step in steps(path, places(MESSAGES))] == [rows]


def test_segment_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="does not match"):
        steps(manifest(tmp_path, [], digest="0" * 64), places(MESSAGES))


def test_parts_of_a_stream_hold_every_message_once() -> None:
    parts = [list(of_rows(MESSAGES, start=start, stop=start + 5)) for start in range(0, 15, 5)]
    assert [message for part in parts for message in part] == MESSAGES
