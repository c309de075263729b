"""Files in an object store: S3 and whatever speaks its protocol, and Google Cloud Storage. The only file of `stream` that imports obstore.

Credentials, region and endpoint come from the environment, as those of checkpoints do; never from a URL or a job file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, cast

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import ObjectStore, from_url

from dtrain.errors import AuthError, UnavailableError
from dtrain.stream.files_places import changed, gone
from dtrain.stream.log import File

PATIENCE_S = 20.0
"""How long a request is tried again while the server or the network fails; the reader tries on behind it."""

_BUFFER_BYTES = 1 << 20
_TRIES = 3


class ObjectPlace:
    """The objects of a bucket whose keys match a pattern; another ETag makes another file."""

    def __init__(self, store: ObjectStore, *, bucket: str, pattern: str) -> None:
        self._store = store
        self._bucket = bucket
        self._pattern = f"/{pattern}"

    @classmethod
    def at(cls, url: str) -> ObjectPlace:
        """The objects of `url`, as s3://bucket/prefix/2013-*.parquet. Nothing is asked of the server yet."""
        scheme, _, rest = url.partition("://")
        bucket, _, pattern = rest.partition("/")
        store = from_url(
            f"{scheme}://{bucket}",
            client_options={
                "allow_http": True,  # where the operator's own endpoint begins with http://
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=PATIENCE_S),
            },
            retry_config={"max_retries": 5, "retry_timeout": timedelta(seconds=PATIENCE_S)},
        )
        return cls(store, bucket=f"{scheme}://{bucket}", pattern=pattern)

    def find(self) -> list[File]:
        """See `FilePlace.find`."""
        literal = self._pattern[1:]
        for wildcard in "*?[":
            literal = literal.partition(wildcard)[0]
        folder = literal.rpartition("/")[0]  # a prefix of whole names is all that the library lists
        with _mapped(f"{self._bucket}{self._pattern}"):
            items = [item for page in obstore.list(self._store, folder or None, chunk_size=1000) for item in page]
        found = [item for item in items if PurePosixPath(f"/{item['path']}").match(self._pattern)]
        return sorted(
            File(f"{self._bucket}/{item['path']}", item["size"], item["e_tag"] or str(item["last_modified"])) for item in found
        )

    def open(self, file: File) -> pa.NativeFile:
        """See `FilePlace.open`. Every request says which version it means, so that none is answered from another."""
        raw = _Object(self._store, file, key=file.name.removeprefix(f"{self._bucket}/"))
        return pa.PythonFile(io.BufferedReader(cast(io.RawIOBase, raw), _BUFFER_BYTES), mode="r")

    def check(self, file: File) -> None:
        """See `FilePlace.check`: what is read is of the version that was asked for."""


class _Object(io.RawIOBase):
    """One version of an object, read by ranges."""

    def __init__(self, store: ObjectStore, file: File, *, key: str) -> None:
        self._store = store
        self._file = file
        self._key = key
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._file.size)
        if stop <= self._at:
            return 0
        with _mapped(self._file.name, version=self._file.version):
            found = self._get(self._at, stop)
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _get(self, start: int, stop: int) -> memoryview:
        """A range; asked again where a reply broke off in its body, which the library does not do."""
        for tries_left in reversed(range(_TRIES)):
            try:
                reply = obstore.get(self._store, self._key, options={"range": (start, stop), "if_match": self._file.version})
                return memoryview(reply.bytes())
            except GenericError as error:
                if not tries_left or "body" not in str(error).partition("\n")[0]:
                    raise
        raise AssertionError


@contextmanager
def _mapped(name: str, *, version: str = "") -> Iterator[None]:
    try:
        yield
    except PreconditionError as error:
        raise changed(name, before=f"version {version}", now="another version") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise AuthError(f"no access to {name}", fix="look at the credentials in the readers' environment") from error
    except (BaseError, OSError) as error:
        if isinstance(error, FileNotFoundError) and version:
            raise gone(name) from error
        reason = str(error).partition("\n")[0][:300]
        raise UnavailableError(f"cannot read {name}: {reason}", fix="look at the bucket and the endpoint") from error
