"""Locks: which exact packages a job's requirements came to, settled once where the truth is kept.

So every later start has the same, whoever makes it: the next incarnation, another control plane, `local`, `replay`.
"""

from __future__ import annotations

import hashlib

from dtrain.checkpoint.documents import read_document, write_document
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import CorruptError, NotFoundError

_FIX = "restore the job's folder, or change `requirements` and resume with --accept-code-change"


def settled_lock(store: CheckpointStore, requirements_sha256: str) -> str | None:
    """The lock that these requirements came to in this job; None before there is one.

    Raises:
        CorruptError: it is not what was written.
        StorageError: the store cannot be read.
    """
    name = _pointer(requirements_sha256)
    try:
        content = store.files.read(name)
    except NotFoundError:
        return None
    return read_lock(store, str(read_document(content, what=name).get("lock")))


def settle_lock(store: CheckpointStore, requirements_sha256: str, lock: str) -> str:
    """The lock that these requirements have from now on: `lock`, unless somebody else was first. Durable when this returns.

    Raises:
        CorruptError: somebody else's is not what was written.
        StorageError: the store cannot be written.
    """
    content = lock.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    store.files.put(_lock(sha256), content)
    if store.files.create(_pointer(requirements_sha256), write_document({"lock": sha256})):
        return lock
    return settled_lock(store, requirements_sha256) or lock


def read_lock(store: CheckpointStore, lock_sha256: str) -> str:
    """The lock of that digest, as a manifest names it; empty for a job without one.

    Raises:
        CorruptError: it is missing, or is not what was written.
        StorageError: the store cannot be read.
    """
    if not lock_sha256:
        return ""
    try:
        content = store.files.read(_lock(lock_sha256))
    except NotFoundError as error:
        raise CorruptError(f"the lock {lock_sha256[:12]} of the job's packages is missing", fix=_FIX) from error
    if hashlib.sha256(content).hexdigest() != lock_sha256:
        raise CorruptError(f"the lock {lock_sha256[:12]} of the job's packages does not match its digest", fix=_FIX)
    return content.decode()


def _pointer(requirements_sha256: str) -> str:
    return f"requirements/{requirements_sha256}.json"


def _lock(sha256: str) -> str:
    return f"locks/{sha256}.json"
