"""The committed code is what the protos give."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from scripts.generate_protos import HOME, ROOT, generate


def test_generated_code_is_current(tmp_path: Path) -> None:
    generate(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in HOME.iterdir() if path.is_file()}
    assert made == committed, "run: make proto"


def test_every_message_field_and_call_has_a_comment() -> None:
    for proto in (ROOT / "protos").rglob("*.proto"):
        lines = proto.read_text().splitlines()
        for before, line in pairwise(lines):
            if re.match(r"\s*(message|enum|service|rpc|[\w.<>, ]+ \w+ = \d+;)", line):
                assert before.lstrip().startswith("//"), f"{proto.name}: {line}"
