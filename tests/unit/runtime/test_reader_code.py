"""A reader decodes by the code that its job has, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.code.digest import digest_of
from dtrain.errors import DriftError
from dtrain.runtime.messages import Following
from dtrain.runtime.reader import Reader
from dtrain.spec.job import JobSpec


@pytest.mark.parametrize("is_mapped", [True, False])
def test_follow_of_a_reader_with_other_code_is_refused_where_rows_pass_it(
    is_mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtrain.logs.configure", lambda **_: None)
    rows, code = tmp_path / "rows.csv", tmp_path / "code"
    rows.write_text("y\n1\n2\n", encoding="utf-8")
    code.mkdir()
    (code / "reader_maps.py").write_text("def same(batch):\n    return batch\n", encoding="utf-8")
    spec = JobSpec.model_validate(
        {
            "name": "coded",
            "task": "reader_maps:None",
            "code": str(code),
            "source": {"files": str(rows)},
            "transform": {"map": "reader_maps:same"} if is_mapped else {},
            "checkpoint": {"to": str(tmp_path)},
        }
    )
    reader = Reader(spec.to_json(), "")
    beginning = reader.begin()
    before = digest_of(spec.code)
    (code / "reader_maps.py").write_text("def same(batch):\n    return batch.slice(1)\n", encoding="utf-8")

    def follow(code_sha256: str) -> None:
        reader.follow(
            Following(1, beginning.positions, beginning.ends, {"y": "int64"}, beginning.identity, {}, code_sha256=code_sha256)
        )

    follow(before)
    if is_mapped:
        with pytest.raises(DriftError, match="a reader has"):
            follow(digest_of(spec.code))
    else:
        follow(digest_of(spec.code))
