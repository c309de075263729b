"""Files in an object store: S3 and whatever speaks its protocol, and Google Cloud Storage. The only file that imports obstore.

Credentials, region and endpoint come from the environment, as the providers' own tools read them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT,
GOOGLE_APPLICATION_CREDENTIALS, …); never from a URL or a job file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import ObjectStore, from_url

from dtrain.errors import NotFoundError, StorageError

Result = TypeVar("Result")

PATIENCE_S = 60.0
"""How long an operation is tried again while the server or the network fails."""

_PART_BYTES = 16 * 2**20


class ObjectFiles:
    """The objects under a prefix of a bucket; see `Files`.

    What is larger than a part is uploaded in parts, which nobody sees before the last: what a killed writer leaves of them is for the
    bucket's lifecycle rules. `delete` looks at the time and then deletes: who writes the same name again in between loses it, so
    only the owner of a job deletes, and nothing that is younger than a checkpoint that it has seen succeeded.
    """

    def __init__(self, store: ObjectStore, *, place: str) -> None:
        self._store = store
        self._place = place

    @classmethod
    def open(cls, url: str, *, patience_s: float = PATIENCE_S) -> ObjectFiles:
        """The objects under `url`, as s3://bucket/prefix or gs://bucket/prefix. Nothing is asked of the server yet."""
        store = from_url(
            url,
            client_options={
                "allow_http": True,  # where the operator's own endpoint begins with http://
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=patience_s),
            },
            retry_config={"max_retries": 8, "retry_timeout": timedelta(seconds=patience_s)},
        )
        return cls(store, place=url)

    def create(self, name: str, content: bytes) -> bool:
        """See `Files.create`. False also where the reply to a first try was lost and the name is taken by this content."""
        with self._mapped("write", name):
            try:
                obstore.put(self._store, name, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def put(self, name: str, *parts: bytes | memoryview) -> None:
        """See `Files.put`."""
        is_small = sum(memoryview(part).nbytes for part in parts) <= _PART_BYTES
        with self._mapped("write", name):
            if is_small:
                obstore.put(self._store, name, b"".join(parts), use_multipart=False)
            else:
                obstore.put(self._store, name, _pieces(parts), chunk_size=_PART_BYTES, max_concurrency=4)

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        with self._mapped("read", name, missing=NotFoundError):
            return _again(lambda: obstore.get(self._store, name).bytes().to_bytes())

    def digest(self, name: str) -> str:
        """See `Files.digest`."""
        with self._mapped("read", name, missing=NotFoundError):
            return _again(lambda: _sha256(obstore.get(self._store, name).stream(min_chunk_size=2**20)))

    def modified(self, folder: str) -> dict[str, float]:
        """See `Files.modified`. S3 and GCS list all that was written before the call."""
        with self._mapped("list", folder):
            pages = _again(lambda: list(obstore.list(self._store, f"{folder}/", chunk_size=1000)))
        return {item["path"].removeprefix(f"{folder}/"): item["last_modified"].timestamp() for page in pages for item in page}

    def delete(self, name: str, *, seen_s: float | None = None) -> bool:
        """See `Files.delete`."""
        with self._mapped("delete", name):
            try:
                if seen_s is not None and obstore.head(self._store, name)["last_modified"].timestamp() != seen_s:
                    return False
                obstore.delete(self._store, name)
            except FileNotFoundError:
                return True
        return True

    def sweep(self, *, before_s: float) -> None:
        """See `Files.sweep`: nothing unfinished has a name here."""

    @contextmanager
    def _mapped(
        self, verb: str, name: str, *, missing: type[NotFoundError] | type[StorageError] = StorageError
    ) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            is_missing = isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error)
            reason = str(error).partition("\n")[0][:300]
            kind = missing if is_missing else StorageError
            raise kind(
                f"cannot {verb} {self._place}/{name}: {reason}", fix="look at the bucket, the endpoint and the credentials"
            ) from error


def _again(call: Callable[[], Result]) -> Result:
    """What `call` gives; once or twice more where a reply broke off in its body, which the library does not try again."""
    for _ in range(2):
        try:
            return call()
        except GenericError as error:
            if "body" not in str(error).partition("\n")[0]:
                raise
    return call()


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _pieces(parts: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
    """`parts` in pieces of at most a part's size, none copied."""
    for part in parts:
        data = memoryview(part).cast("B")
        for start in range(0, data.nbytes, _PART_BYTES):
            yield data[start : start + _PART_BYTES]
