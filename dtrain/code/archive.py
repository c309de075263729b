"""Archives of code: plain ustar, regular files alone, equal bytes for equal contents; so what one holds is checked header by header."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dtrain.code.digest import digest_modules, is_counted
from dtrain.code.tree import IGNORE_FILE, Rules, walk
from dtrain.errors import InputError, StorageError

_BLOCK = tarfile.BLOCKSIZE
_PLAIN, _EXECUTABLE = 0o644, 0o755
_NAMED = 5
"""So many of the largest files are named."""
_CORRUPT = "pack the folder again, with a client of the same version"


@dataclass(frozen=True, slots=True)
class Limits:
    """What code may be at most.

    Args:
        max_bytes: of all files together.
        max_files: how many.
    """

    max_bytes: int = 64 << 20
    max_files: int = 5_000

    @property
    def max_archive_bytes(self) -> int:
        """What an archive of that is at most: a header and up to a block's rest for each file, and the end."""
        return self.max_bytes + 2 * _BLOCK * self.max_files + tarfile.RECORDSIZE


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive.

    Args:
        path: relative, with slashes.
        content: what is in it.
        is_executable: whether it may be run as a program.
    """

    path: str
    content: memoryview
    is_executable: bool


@dataclass(frozen=True, slots=True)
class Archive:
    """Packed code.

    Args:
        content: the ustar archive, not compressed: equal code has equal bytes everywhere.
        sha256: of `content`, in hex: the name that it is kept by.
        code_sha256: `digest_code` of what it is unpacked to.
        num_files: how many it holds.
    """

    content: bytes
    sha256: str
    code_sha256: str
    num_files: int


def pack(folder: Path, *, besides: Sequence[str] = (), requirements: str = "", limits: Limits = LIMITS) -> Archive:
    """The code in `folder`.

    Args:
        folder: its ignore file is honoured.
        besides: patterns of what else is left out, as in the ignore file.
        requirements: the file in it that lists the job's requirements, if one does.
        limits: beyond which it is refused.

    Raises:
        InputError: the folder cannot be read, has not that file, or holds a link, something that is no file, a name that does not travel, or too much.
    """
    with _readable(folder):
        root = folder.resolve(strict=True)
        sizes = {}
        for path in walk(root, Rules.of(root, besides=besides)):
            sizes[path] = _size_of(root, path)
            _check_number(len(sizes), folder, limits)
        _check_size(sizes, folder, limits)
        if requirements and requirements not in sizes:
            fix = f"put it there, and let {IGNORE_FILE} not leave it out; hidden files are"
            raise InputError(f"the file of `requirements`, {requirements}, is not among the code in {folder}", fix=fix)
        made, modules = io.BytesIO(), []
        with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict") as tar:
            for path in sizes:
                content, is_executable = _read(root / path)
                sizes[path] = len(content)
                tar.addfile(_header(path, len(content), is_executable), io.BytesIO(content))
                if is_counted(path, requirements=requirements):
                    modules.append((path, hashlib.sha256(content).hexdigest()))
    _check_size(sizes, folder, limits)  # files may have grown meanwhile
    packed = made.getvalue()
    return Archive(packed, hashlib.sha256(packed).hexdigest(), digest_modules(modules), len(sizes))


def members(archive: bytes, *, limits: Limits = LIMITS) -> Iterator[Member]:
    """Its files, in order; whatever the bytes are, none that leads out of the folder, is no plain file, or is there twice.

    Raises:
        InputError: it is no archive that `pack` could have made.
    """
    view, at, num_bytes = memoryview(archive), 0, 0
    files: set[str] = set()
    folders: set[str] = set()
    while not _is_end(view, at):
        header = _parsed(bytes(view[at : at + _BLOCK]))
        begin, num_bytes = at + _BLOCK, num_bytes + header.size
        at = begin + -(-header.size // _BLOCK) * _BLOCK
        if at > len(view):
            raise _refused("it ends in the middle of a file")
        if num_bytes > limits.max_bytes or len(files) >= limits.max_files:
            raise _refused("it holds more than code may be", fix=f"send at most {_told(limits)}")
        parents = {str(parent) for parent in PurePosixPath(header.name).parents}
        if header.name in files or header.name in folders or parents & files:
            raise _refused(f"{header.name!r} is there twice")
        files.add(header.name)
        folders |= parents
        yield Member(header.name, view[begin : begin + header.size], bool(header.mode & stat.S_IXUSR))


def unpack(archive: bytes, folder: Path, *, limits: Limits = LIMITS) -> None:
    """`folder`, which must not exist, holds the archive's files; none of it can be written to.

    Raises:
        InputError: as `members`; what was written so far is left.
        StorageError: it cannot be written; the same.
    """
    try:
        folder.mkdir(mode=0o700)
        for member in members(archive, limits=limits):
            path = folder / member.path
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
                file.write(member.content)
                os.fchmod(file.fileno(), 0o555 if member.is_executable else 0o444)
        for name, _, _ in os.walk(folder, topdown=False):
            os.chmod(name, 0o555)  # noqa: S103 only what is in it can be read
    except OSError as error:
        raise StorageError(f"code cannot be unpacked to {folder}: {error.strerror}", fix="free space there") from error


def _header(path: str, num_bytes: int, is_executable: bool) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)  # owner 0, time 0, no names: nothing that is not content
    info.size, info.mode = num_bytes, _EXECUTABLE if is_executable else _PLAIN
    try:
        if not _stays(path):
            raise ValueError("it has characters that mean something else elsewhere")  # noqa: TRY301
        info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    except ValueError as error:
        fix = f"use names of up to 100 bytes, in UTF-8, or leave it out in {IGNORE_FILE}"
        raise InputError(f"the name {path!r} cannot travel: {error}", fix=fix) from error
    return info


def _parsed(block: bytes) -> tarfile.TarInfo:
    """The header in a block, of a plain file whose name stays in the folder."""
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise _refused(f"a header is damaged ({error})") from error
    if block[257:265] != tarfile.POSIX_MAGIC or info.type != tarfile.REGTYPE:
        raise _refused(f"{info.name!r} is no plain file")
    if not _stays(info.name):
        raise _refused(f"the name {info.name!r} leads elsewhere")
    if info.size < 0:
        raise _refused(f"{info.name!r} has a size below 0")
    return info


def _stays(name: str) -> bool:
    """Whether `name` is that of a file below the folder, on every system."""
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def _is_end(view: memoryview, at: int) -> bool:
    """Whether nothing but the end follows. An archive that was cut short has none."""
    block = bytes(view[at : at + _BLOCK])
    if len(block) < _BLOCK:
        raise _refused("it has no end")
    if any(block):
        return False
    if bytes(view[at:]).strip(b"\0"):
        raise _refused("something stands behind its end")
    return True


def _refused(why: str, *, fix: str = _CORRUPT) -> InputError:
    return InputError(f"this is no archive of code: {why}", fix=fix)


def _size_of(root: Path, path: str) -> int:
    """Bytes of a plain file."""
    found = (root / path).lstat()
    if stat.S_ISLNK(found.st_mode):
        fix = f"put the file itself there, or leave the link out in {IGNORE_FILE}"
        raise InputError(f"{root / path} is a link, which may lead anywhere where the code runs", fix=fix)
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{root / path} is no file", fix=f"leave it out in {IGNORE_FILE}")
    return found.st_size


def _read(path: Path) -> tuple[bytes, bool]:
    """What is in a file, and whether its owner may run it; if it is a link by now, an `OSError`."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(), bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR)


def _check_number(number: int, folder: Path, limits: Limits) -> None:
    if number > limits.max_files:
        fix = f"name a folder with code alone in `code`, or list in {IGNORE_FILE} there what is none"
        raise InputError(f"{folder} has more than {limits.max_files:,} files", fix=fix)


def _check_size(sizes: dict[str, int], folder: Path, limits: Limits) -> None:
    num_bytes = sum(sizes.values())
    if num_bytes > limits.max_bytes:
        large = [path for path in sizes if sizes[path] * 100 >= num_bytes] or sizes
        largest = sorted(large, key=lambda path: -sizes[path])[:_NAMED]
        named = ", ".join(f"{path} ({_mib(sizes[path])})" for path in largest)
        raise InputError(
            f"the code in {folder} has {_mib(num_bytes)}, more than {_mib(limits.max_bytes)}; the largest: {named}",
            fix=f"list what is no code in {folder / IGNORE_FILE}, as in .gitignore",
        )


def _told(limits: Limits) -> str:
    return f"{_mib(limits.max_bytes)} in {limits.max_files:,} files"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.1f} MiB"


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot read the code in {folder}: {error}", fix="`code` must be a readable folder") from error
