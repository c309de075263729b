"""Generates docs/job.md from the job file's JSON schema: `python -m scripts.generate_job_docs`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtrain.spec.expectation import expectation, fields

HOME = Path(__file__).resolve().parent.parent / "docs" / "job.md"
_HEAD = """# The job file, field by field

Made from the JSON schema (`dtrain schema`) by `python -m scripts.generate_job_docs`: do not edit. Durations are written as `200ms`, `30s`, `10m`, `2h`,
`1d`; `${NAME}` and `${NAME:-default}` stand for environment variables of whoever submits; paths are taken from the job file's folder.

| field | what it is | what may stand there | default |
| --- | --- | --- | --- |
"""


def document() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(".".join(path), field, is_required) for path, field, is_required in fields())


def _row(name: str, field: Mapping[str, Any], is_required: bool) -> str:
    default = field.get("default")
    shown = "**required**" if is_required else f"`{default}`" if default not in (None, "", [], {}) else ""
    cells = (f"`{name}`", field.get("description", ""), expectation(field), shown)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |\n"


if __name__ == "__main__":
    HOME.write_text(document(), encoding="utf-8")
