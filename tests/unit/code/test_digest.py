from pathlib import Path

import pytest

from dtrain.code.archive import pack
from dtrain.code.digest import digest_code, digest_of, is_digest_of, with_packages
from dtrain.code.tree import IGNORE_FILE, Rules
from dtrain.errors import InputError


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "pkg").mkdir(parents=True)
    (folder / "task.py").write_text("a = 1")
    (folder / "pkg" / "net.py").write_text("b = 2")
    return folder


def test_digest_of_a_copy_elsewhere_is_equal(code: Path, tmp_path: Path) -> None:
    code_digest = digest_code(code)
    assert digest_code(code.rename(tmp_path / "other")) == code_digest


@pytest.mark.parametrize("name", [".git/hook.py", "__pycache__/x.py", "pkg/__pycache__/x.py", ".hidden.py", "data.csv"])
def test_digest_ignores_what_is_no_code(code: Path, name: str) -> None:
    before = digest_code(code)
    (code / name).parent.mkdir(exist_ok=True)
    (code / name).write_text("x")
    assert digest_code(code) == before


def test_digest_leaves_out_what_does_not_travel(code: Path) -> None:
    before = digest_code(code)
    for name in ("venv/x.py", "build/x.py", "old/x.py"):
        (code / name).parent.mkdir()
        (code / name).write_text("x")
    (code / IGNORE_FILE).write_text("old/")
    assert digest_code(code) == before


def test_digest_that_was_taken_before_there_were_ignore_files_still_counts(code: Path) -> None:
    (code / "venv").mkdir()
    (code / "venv" / "x.py").write_text("x")
    earlier = digest_code(code, rules=Rules.before_ignore_files())
    assert earlier != digest_of(str(code))
    assert is_digest_of(earlier, str(code))
    (code / "task.py").write_text("a = 2")
    assert not is_digest_of(earlier, str(code))
    assert is_digest_of("", "")
    assert not is_digest_of(earlier, "")


def test_digest_changes_with_content_name_and_place(code: Path) -> None:
    digests = {digest_code(code)}
    (code / "task.py").write_text("a = 2")
    digests.add(digest_code(code))
    (code / "task.py").rename(code / "job.py")
    digests.add(digest_code(code))
    (code / "job.py").rename(code / "pkg" / "job.py")
    digests.add(digest_code(code))
    (code / "empty.py").touch()
    digests.add(digest_code(code))
    assert len(digests) == 5


def test_digest_covers_where_a_link_inside_the_folder_leads(code: Path) -> None:
    (code / "alias").symlink_to("pkg")
    before = digest_code(code)
    (code / "alias").unlink()
    assert digest_code(code) != before


@pytest.mark.parametrize("target", ["module", "folder"])
def test_digest_refuses_a_link_that_leaves_the_folder(code: Path, tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.py").touch()
    (code / "x.py").symlink_to(outside if target == "folder" else outside / "x.py")
    with pytest.raises(InputError, match="leads outside"):
        digest_code(code)


def test_digest_of_broken_and_circular_links_is_refused(code: Path) -> None:
    for target in ("nowhere.py", "x.py"):
        (code / "x.py").symlink_to(target)
        with pytest.raises(InputError):
            digest_code(code)
        (code / "x.py").unlink()


def test_digest_of_a_missing_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no", __file__):
        with pytest.raises(InputError, match="cannot read the code"):
            digest_code(Path(path))


def test_file_of_the_requirements_counts_as_code_where_there_is_one(code: Path) -> None:
    (code / "needs.txt").write_text("einops")
    before, without = digest_code(code, requirements="needs.txt"), digest_code(code)
    assert pack(code, requirements="needs.txt").code_sha256 == before != without
    (code / "needs.txt").write_text("einops>=1")
    assert digest_code(code, requirements="needs.txt") != before
    assert digest_code(code) == without
    (code / "needs.txt").unlink()
    with pytest.raises(InputError, match=r"needs\.txt, is not among the code"):
        pack(code, requirements="needs.txt")


def test_packages_are_a_part_of_what_processes_compare() -> None:
    assert with_packages("code", "") == "code"
    assert len({with_packages("code", lock) for lock in ("", "one", "two")}) == 3
