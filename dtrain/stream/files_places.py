"""Where files are: found by a pattern, told apart from others of their name, and opened; on a local disk, or in an object store."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.request import url2pathname

import pyarrow as pa

from dtrain.errors import DataLossError, InputError, UnavailableError
from dtrain.stream.log import File


class FilePlace(Protocol):
    """The files that a pattern names."""

    def find(self) -> list[File]:
        """All of them, by name. Raises `UnavailableError`, `AuthError`."""
        ...

    def open(self, file: File) -> pa.NativeFile:
        """The file's bytes, for random access; the caller closes it. Raises `DataLossError` if it is gone or another one."""
        ...

    def check(self, file: File) -> None:
        """Return if what was read of the open file is still the file's. Raises `DataLossError`."""
        ...


def open_place(pattern: str) -> FilePlace:
    """The place of `pattern`: a path, file:///path, s3://bucket/key or gs://bucket/key; `*`, `?` and `[…]` stand within one name.

    Raises:
        InputError: what the URL needs is not installed.
    """
    if pattern.startswith("file://"):
        return LocalPlace(url2pathname(pattern.removeprefix("file://")))
    if "://" not in pattern:
        return LocalPlace(pattern)
    try:
        from dtrain.stream.files_objects import ObjectPlace
    except ModuleNotFoundError as error:
        raise InputError(f"{pattern} needs obstore, which is not installed", fix="pip install 'dtrain[objects]'") from error
    return ObjectPlace.at(pattern)


def gone(name: str) -> DataLossError:
    """What to say of a file that is not there any more."""
    return DataLossError(f"{name} is gone", fix="put it back as it was, or start a new job")


def changed(name: str, *, before: str, now: str) -> DataLossError:
    """What to say of a file that is another one now."""
    return DataLossError(
        f"{name} was changed since the job began: {now}, not {before}", fix="put it back as it was, or start a new job"
    )


class LocalPlace:
    """Files on a disk that every reader sees; another time of the last write makes another file."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def find(self) -> list[File]:
        """See `FilePlace.find`."""
        try:
            found = [_described(path) for path in sorted(glob.glob(self._pattern)) if Path(path).is_file()]
        except OSError as error:
            raise UnavailableError(f"cannot list {self._pattern}: {error.strerror}", fix="look at that disk") from error
        return found

    def open(self, file: File) -> pa.NativeFile:
        """See `FilePlace.open`."""
        self.check(file)
        with _mapped(file.name):
            return pa.OSFile(file.name)

    def check(self, file: File) -> None:
        """See `FilePlace.check`."""
        with _mapped(file.name):
            found = _described(file.name)
        check_same(file, found)


@contextlib.contextmanager
def _mapped(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise gone(name) from error
    except OSError as error:
        raise UnavailableError(f"cannot read {name}: {error.strerror or error}", fix="look at that disk") from error


def check_same(expected: File, found: File) -> None:
    """Return if the file is the one that was expected. Raises `DataLossError`."""
    if found != expected:
        raise changed(expected.name, before=_words(expected), now=_words(found))


def _described(path: str) -> File:
    status = os.stat(path)
    return File(path, status.st_size, str(status.st_mtime_ns))


def _words(file: File) -> str:
    return f"{file.size:,} bytes of version {file.version}"
