"""A job's requirements on their way to its processes: settled as a lock, once, in the checkpoint store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dtrain.checkpoint.locks import settle_lock, settled_lock
from dtrain.checkpoint.store import CheckpointStore
from dtrain.packages.base import Base
from dtrain.packages.cache import host_packages
from dtrain.packages.lock import digest_of_requirements
from dtrain.packages.resolve import resolve
from dtrain.spec.job import JobSpec
from dtrain.spec.requirements import requirements_of

Tell = Callable[[str], None]


def lock_of(spec: JobSpec, store: CheckpointStore, *, code: str, tell: Tell) -> str:
    """The lock of the job's requirements, as JSON; empty where it has none. What is not settled yet is resolved, on this host.

    Args:
        spec: the job.
        store: of its checkpoints, where the lock is kept.
        code: the folder of its code here.
        tell: hears in a sentence what takes time, and what came of it.

    Raises:
        SpecError: the file of the requirements has a line that is none.
        RequirementsError: as `resolve`.
        CorruptError: the lock that was kept is not what was written.
        StorageError: the store cannot be read or written.

    Blocking: for as long as the index of packages takes to answer.
    """
    requirements = requirements_of(spec.requirements, code=code)
    if not requirements:
        return ""
    key = digest_of_requirements(requirements)
    return settled_lock(store, key) or settle_lock(store, key, _resolved(requirements, tell=tell))


def _resolved(requirements: Sequence[str], *, tell: Tell) -> str:
    tell(f"resolving {', '.join(requirements)[:200]}")
    lock = resolve(requirements, base=Base.here(without=host_packages().root))
    tell(f"settled for the life of the job, besides what the workers have: {str(lock)[:300]}")
    return lock.to_json()
