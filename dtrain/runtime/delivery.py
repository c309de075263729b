"""A job's code on its way from its coordinator to the hosts where it runs: through Ray, by digest, unpacked once a host. Its lock goes along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from dtrain.code.cache import host_cache
from dtrain.code.digest import digest_of, with_packages
from dtrain.errors import UnavailableError
from dtrain.packages.cache import use
from dtrain.packages.lock import digest_of_lock
from dtrain.spec.job import JobSpec

_FETCH_S = 120.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a process needs to have the job's code, and the packages that it requires; small, whatever the code is.

    Args:
        sha256: of the archive; empty where the job's processes read the user's folder themselves.
        archive: a reference to its bytes, in a tuple, so that Ray does not fetch them for a process whose host has the code already.
        lock: of the packages, as JSON; empty where none are required.
    """

    sha256: str = ""
    archive: tuple[Any, ...] = ()
    lock: str = ""

    @classmethod
    def of(cls, sha256: str, archive: bytes) -> Delivery:
        """It can be fetched for as long as this process lives."""
        return cls(sha256, (ray.put(archive),))

    def fetch(self) -> bytes:
        """The archive.

        Raises:
            UnavailableError: the coordinator that offered it is gone, or out of reach.
        """
        try:
            archive: bytes = ray.get(self.archive[0], timeout=_FETCH_S)
        except RayError as error:
            raise UnavailableError(f"the job's code could not be fetched: {str(error).splitlines()[0][:200]}") from error
        return archive


NOTHING = Delivery()
"""Of a job whose processes read the user's folder, and whose code requires no packages."""


def with_code_here(spec: JobSpec, delivery: Delivery) -> JobSpec:
    """`spec` with the folder of its code on this host; as it is, where the job's processes read the user's folder themselves.

    Blocking: for as long as the archive needs to come.

    Raises:
        UnavailableError: as `Delivery.fetch`.
        CorruptError: the code here, or what came, is not what was sent.
        StorageError: this host has no room for it.
    """
    if not delivery.sha256:
        return spec
    return spec.model_copy(update={"code": str(host_cache().folder_of(delivery.sha256, delivery.fetch))})


def use_packages(delivery: Delivery, *, log: Any) -> None:
    """What the job's code requires can be imported in this process from now on.

    Args:
        delivery: with its lock.
        log: told before this host's packages are installed, if they are not there.

    Blocking: while they are installed, by whichever process of this host is first.

    Raises as `packages.cache.use`.
    """
    use(delivery.lock, on_install=lambda lock: log.info("installs packages", packages=str(lock)))


def program_here(spec: JobSpec, delivery: Delivery) -> str:
    """The digest of code and packages that a process has; to be taken before any of it is imported."""
    code_sha256 = digest_of(spec.code, requirements=spec.requirements_file)
    return with_packages(code_sha256, digest_of_lock(delivery.lock))
