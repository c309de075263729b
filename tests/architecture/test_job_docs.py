"""docs/job.md is what the schema says."""

from __future__ import annotations

from scripts.generate_job_docs import HOME, document


def test_job_docs_are_current() -> None:
    assert HOME.read_text(encoding="utf-8") == document()
