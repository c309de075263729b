"""Requirements come to exact packages beside those that the workers have, of which none is replaced. With the real tool, over a folder."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from dtrain.errors import RequirementsError
from dtrain.packages.base import Base
from dtrain.packages.resolve import resolve
from tests.support.packages import offer

NUMPY = version("numpy")


@pytest.fixture(scope="module")
def base() -> Base:
    offer("dtrain-probe", ["1.0", "2.0"])
    offer("dtrain-backward", ["1.0"], requires=["dtrain-probe<2", "numpy>=1"])
    offer("dtrain-backward", ["2.0"], requires=["numpy<1"])
    offer("dtrain-greedy", ["1.0"], requires=["numpy<1"])
    return Base(sys.path)


def test_lock_has_what_the_base_lacks_and_an_older_version_where_the_newest_does_not_fit_the_base(base: Base) -> None:
    lock = resolve(["dtrain-backward"], base=base)
    assert lock.versions == {"dtrain-backward": "1.0", "dtrain-probe": "1.0"}
    assert lock.base == {"numpy": NUMPY}
    assert all(one.startswith("sha256:") for pin in lock.pins for one in pin.hashes)


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("numpy<1", f"the job requires numpy<1, and the workers have numpy {NUMPY}"),
        ("dtrain-greedy", f"dtrain-greedy depend.* on numpy<1 and the workers have numpy {NUMPY}, we can conclude"),
        ("dtrain-probe>=3", "only dtrain-probe<=2.0 is available"),
        ("dtrain-nowhere", "dtrain-nowhere was not found"),
    ],
)
def test_what_cannot_be_had_is_told_with_the_requirement_and_the_workers_version(
    base: Base, requirement: str, words: str
) -> None:
    with pytest.raises(RequirementsError, match=words):
        resolve([requirement], base=base)


def test_requirement_for_another_system_asks_for_nothing(base: Base) -> None:
    lock = resolve(['numpy<1; sys_platform == "win32"'], base=base)
    assert (lock.pins, lock.base) == ((), {})


def test_credentials_of_an_index_are_in_no_error(base: Base, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"file://me:s3cret@{tmp_path}/none?token=s3cret")
    with pytest.raises(RequirementsError) as caught:
        resolve(["dtrain-probe"], base=base)
    assert "s3cret" not in str(caught.value)
