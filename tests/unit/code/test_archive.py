"""Archives of code: equal for equal contents, and whatever the bytes are, nothing leads out of the folder."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dtrain.code.archive import Limits, members, pack, unpack
from dtrain.code.digest import digest_code
from dtrain.code.tree import IGNORE_FILE
from dtrain.errors import InputError, StorageError
from tests.support.code import read_code, tar_of, write_code

FILES = {
    "task.py": "a = 1",
    "pkg/net.py": "b = 2",
    "pkg/words.json": "[]",
    "empty.py": "",
    "ä/ö.py": "",
    IGNORE_FILE: "*.bin\n",
}
GOOD = ("task.py", tarfile.REGTYPE, b"a = 1")
names = st.lists(st.text("abé_1-", min_size=1, max_size=9), min_size=1, max_size=3).map("/".join)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return write_code(tmp_path / "code", FILES)


def test_pack_of_a_copy_made_later_in_other_order_gives_equal_bytes(code: Path, tmp_path: Path) -> None:
    copy = write_code(tmp_path / "copy", dict(reversed(FILES.items())))
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    assert pack(copy) == pack(code)
    assert pack(code).sha256 == hashlib.sha256(pack(code).content).hexdigest()


def test_pack_changes_with_any_file_its_name_and_whether_it_can_be_run(code: Path) -> None:
    seen = {pack(code).sha256}
    (code / "pkg" / "words.json").write_text("[1]")
    seen.add(pack(code).sha256)
    (code / "task.py").chmod(0o755)
    seen.add(pack(code).sha256)
    (code / "task.py").rename(code / "other.py")
    seen.add(pack(code).sha256)
    assert len(seen) == 4


def test_unpacked_code_is_what_was_packed_with_its_digest_and_cannot_be_written(code: Path, tmp_path: Path) -> None:
    (code / "pkg" / "net.py").chmod(0o744)
    (code / "x.bin").touch()
    packed, there = pack(code), tmp_path / "there"
    unpack(packed.content, there)
    assert read_code(there) == FILES
    assert digest_code(there) == digest_code(code) == packed.code_sha256
    assert pack(there) == packed
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [there, *there.rglob("*")]}
    assert modes == {0o444, 0o555}
    assert stat.S_IMODE((there / "pkg" / "net.py").stat().st_mode) == 0o555


@given(files=st.dictionaries(names, st.binary(max_size=2_000), max_size=8))
def test_members_of_what_was_packed_are_its_files(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder, kept = tmp_path_factory.mktemp("code"), {}
    for name, content in files.items():
        path = folder / name
        if not path.exists() and not any(parent.is_file() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            kept[name] = content
    packed = pack(folder)
    assert {one.path: bytes(one.content) for one in members(packed.content)} == kept
    assert packed.num_files == len(kept)


@pytest.mark.parametrize("target", ["task.py", "pkg", "nowhere", "/etc/passwd", ".."])
def test_pack_refuses_a_link_wherever_it_leads(code: Path, target: str) -> None:
    (code / "alias.py").symlink_to(target)
    with pytest.raises(InputError, match=r"alias\.py is a link"):
        pack(code)
    (code / IGNORE_FILE).write_text("alias.py\n")
    assert "alias.py" not in {one.path for one in members(pack(code).content)}


def test_pack_refuses_what_is_no_file_and_does_not_wait_for_it(code: Path) -> None:
    os.mkfifo(code / "pipe")
    with pytest.raises(InputError, match="pipe is no file"):
        pack(code)


@pytest.mark.parametrize("name", ["a\\b.py", "a\nb.py", "x" * 120, os.fsdecode(b"\xff.py")])
def test_pack_refuses_a_name_that_does_not_travel(code: Path, name: str) -> None:
    (code / name).touch()
    with pytest.raises(InputError, match="cannot travel"):
        pack(code)


def test_pack_of_too_much_names_the_largest_files_and_the_ignore_file(code: Path) -> None:
    for number, size in enumerate([100_000, 900_000, 500_000]):
        (code / f"data-{number}").write_bytes(bytes(size))
    with pytest.raises(InputError) as caught:
        pack(code, limits=Limits(max_bytes=1 << 20))
    assert "has 1.4 MiB, more than 1.0 MiB; the largest: data-1 (0.9 MiB), data-2 (0.5 MiB), data-0 (0.1 MiB)" in str(
        caught.value
    )
    assert str(code / IGNORE_FILE) in caught.value.fix


def test_pack_of_too_many_files_stops_before_it_has_seen_them_all(code: Path) -> None:
    with pytest.raises(InputError, match="more than 3 files"):
        pack(code, limits=Limits(max_files=3))


def test_pack_of_no_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no", Path(__file__)):
        with pytest.raises(InputError, match="cannot read the code"):
            pack(path)


HOSTILE = {
    "a way up": [("../evil.py", tarfile.REGTYPE, b"")],
    "a way up inside": [("pkg/../../evil.py", tarfile.REGTYPE, b"")],
    "an absolute path": [("/tmp/evil.py", tarfile.REGTYPE, b"")],
    "a dot": [("./task.py", tarfile.REGTYPE, b"")],
    "an empty name": [("", tarfile.REGTYPE, b"")],
    "an empty part": [("a//b", tarfile.REGTYPE, b"")],
    "a backslash": [("a\\b", tarfile.REGTYPE, b"")],
    "a link": [("alias", tarfile.SYMTYPE, b"")],
    "a hard link": [GOOD, ("alias", tarfile.LNKTYPE, b"")],
    "a device": [("null", tarfile.CHRTYPE, b"")],
    "a block device": [("disk", tarfile.BLKTYPE, b"")],
    "a pipe": [("pipe", tarfile.FIFOTYPE, b"")],
    "a folder": [("pkg", tarfile.DIRTYPE, b"")],
    "a sparse file": [("big", tarfile.GNUTYPE_SPARSE, b"")],
    "an old kind of file": [("old", tarfile.AREGTYPE, b"")],
    "a file twice": [GOOD, GOOD],
    "a file that is a folder": [GOOD, ("task.py/x", tarfile.REGTYPE, b"")],
    "a folder that is a file": [("pkg/x", tarfile.REGTYPE, b""), ("pkg", tarfile.REGTYPE, b"")],
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE)
def test_hostile_archive_is_refused_and_writes_nothing_outside(tmp_path: Path, entries: list[tuple[str, bytes, bytes]]) -> None:
    there = tmp_path / "in" / "there"
    there.parent.mkdir()
    with pytest.raises(InputError, match="no archive of code"):
        unpack(tar_of(*entries), there)
    assert {path.name for path in tmp_path.rglob("*")} <= {"in", "there", "task.py", "pkg", "x"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_archive_of_another_format_is_refused(form: int) -> None:
    with pytest.raises(InputError, match="no archive of code"):
        list(members(tar_of(("x" * 150, tarfile.REGTYPE, b""), form=form)))


@pytest.mark.parametrize("size", [b"77777777777\0", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"not a number"])
def test_size_that_cannot_be_is_refused_at_once(size: bytes) -> None:
    content = bytearray(tar_of(GOOD))
    content[124:136] = size
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    with pytest.raises(InputError, match="no archive of code"):
        list(members(bytes(content)))


def test_archive_of_more_than_code_may_be_is_refused_by_what_it_says() -> None:
    with pytest.raises(InputError, match="more than code may be"):
        list(members(tar_of(GOOD, ("b", tarfile.REGTYPE, b"")), limits=Limits(max_files=1)))
    with pytest.raises(InputError, match="more than code may be"):
        list(members(tar_of(GOOD), limits=Limits(max_bytes=4)))


@given(at=st.integers(0, 3_000), flip=st.integers(1, 255), end=st.integers(0, 20_000))
def test_members_of_damaged_bytes_stay_below_the_folder_or_are_refused(at: int, flip: int, end: int) -> None:
    content = bytearray(tar_of(GOOD, ("pkg/net.py", tarfile.REGTYPE, b"b" * 700)))
    content[at % len(content)] ^= flip
    try:
        found = [one.path for one in members(bytes(content[:end]))]
    except InputError:
        return
    assert all(not path.startswith("/") and ".." not in path.split("/") for path in found)


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(InputError, match="behind its end"):
        list(members(tar_of(GOOD) + b"x"))


def test_unpack_where_something_is_already_is_refused(code: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match="cannot be unpacked"):
        unpack(pack(code).content, tmp_path / "there")
