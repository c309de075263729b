"""A lock says which packages, exactly, and is the same text for the same packages."""

from __future__ import annotations

import pytest

from dtrain.errors import CorruptError, RequirementsError
from dtrain.packages.lock import Lock, Pin, changes, digest_of_lock, digest_of_requirements
from dtrain.packages.resolve import pins_in

PRINTED = """\
Probe.Two==1.0 \\
    --hash=sha256:bb \\
    --hash=sha256:aa
numpy==2.3.1 ; sys_platform == 'linux' --hash=sha256:cc
"""


def a_lock(**versions: str) -> Lock:
    return Lock(
        ("probe",), tuple(Pin(name, version, ("sha256:aa",)) for name, version in versions.items()), {"numpy": "2.3"}, "3.11"
    )


def test_lock_comes_back_from_its_text() -> None:
    lock = a_lock(probe="1.0")
    assert Lock.from_json(lock.to_json()) == lock
    assert lock.sha256 == digest_of_lock(lock.to_json()) != a_lock(probe="1.1").sha256


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"requirements": [], "pins": [{}], "base": {}, "python": ""}'])
def test_text_that_is_no_lock_is_corrupt(text: str) -> None:
    with pytest.raises(CorruptError):
        Lock.from_json(text)


def test_printed_pins_have_normal_names_and_their_hashes_in_order() -> None:
    assert list(pins_in(PRINTED)) == [
        Pin("probe-two", "1.0", ("sha256:aa", "sha256:bb")),
        Pin("numpy", "2.3.1", ("sha256:cc",)),
    ]


def test_package_without_a_hash_is_refused() -> None:
    with pytest.raises(RequirementsError, match=r"probe==1\.0 has no hashes"):
        list(pins_in("probe==1.0\n"))


def test_changes_name_each_package_that_is_another() -> None:
    then, now = a_lock(same="1", other="1", gone="1"), a_lock(same="1", other="2", new="1")
    assert changes(then, now) == ["gone 1 → none", "new none → 1", "other 1 → 2"]


def test_digests_of_nothing_are_empty() -> None:
    assert (digest_of_lock(""), digest_of_requirements(())) == ("", "")
    assert digest_of_requirements(["a", "b"]) != digest_of_requirements(["b", "a"])
