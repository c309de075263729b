"""The launcher: jobs as detached Ray actors, which train on when whoever launched them dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError

from dtrain.code.memory import MemoryCodeStore
from dtrain.code.store import CodeStore
from dtrain.errors import UnavailableError
from dtrain.job.protocols import JobRecord, Resources
from dtrain.job.status import Observation
from dtrain.runtime.coordinator import Coordinator, Orders
from dtrain.runtime.crew import NAMESPACE
from dtrain.runtime.nodes import FOR_JOBS
from dtrain.runtime.room import give_back, has_lost_room, is_reserved, reserve_free
from dtrain.spec.job import JobSpec

_ANSWER_S = 2.0


class RayLauncher:
    """Implements `job.protocols.Launcher` on a Ray cluster.

    Args:
        logs: folder in which each job gets one for its logs.
        codes: where the code is that jobs were submitted with.
        is_metrics_on_node: jobs answer /metrics at their node's address, where others may read it; else on loopback.
    """

    def __init__(self, *, logs: Path, codes: CodeStore | None = None, is_metrics_on_node: bool = False) -> None:
        self._logs = logs
        self._codes = codes or MemoryCodeStore()
        self._is_metrics_on_node = is_metrics_on_node

    @classmethod
    def connect(cls, address: str, *, logs: Path, codes: CodeStore, is_metrics_on_node: bool = False) -> RayLauncher:
        """A launcher on the cluster at `address` (host:port of its head), which must be named: Ray joins any that it finds.

        Raises:
            UnavailableError: no cluster answers there.
        """
        try:
            ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UnavailableError(f"no Ray cluster answers at {address}: {error}", fix="start it with `dtrain up`") from error
        return cls(logs=logs, codes=codes, is_metrics_on_node=is_metrics_on_node)

    def capacity(self) -> Resources:
        """What the cluster has in all."""
        with _cluster_errors():
            total = ray.cluster_resources()
        return Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0))

    def launch(self, record: JobRecord) -> None:
        """The coordinator of (job, incarnation) is there and runs. It has the job's code, because it may outlive this process.

        Raises:
            NotFoundError: the code is not kept.
            CorruptError: it is not what was sent.
        """
        archive = self._codes.read(record.code_archive) if record.code_archive else b""
        with _cluster_errors():
            self._launch(record, archive)

    def _launch(self, record: JobRecord, archive: bytes) -> None:
        spec = JobSpec.from_json(record.spec_json)
        workers = record.workers or spec.workers.max
        _reserve(record.job_id, spec, workers=workers)
        orders = Orders(
            job_id=record.job_id,
            incarnation=record.incarnation,
            spec_json=record.spec_json,
            logs=str(self._logs),
            workers=workers,
            accept_code_change=record.accept_code_change,
            skip_poison=record.skip_step,
            allow_gap=record.allow_gap,
            is_metrics_on_node=self._is_metrics_on_node,
            code_archive=record.code_archive,
        )
        coordinator = (
            ray.remote(Coordinator)
            .options(
                name=_coordinator_name(record.job_id, record.incarnation),
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=0,
                num_cpus=0,
                label_selector=FOR_JOBS,
                max_concurrency=10_000,
            )
            .remote(orders, archive)
        )
        coordinator.start.remote()

    def observe(self, job_id: str, incarnation: int, *, cursor: int) -> Observation:
        """What that coordinator says; not alive when there is none. One that does not answer in 2 s, or is out of reach, is alive and silent."""
        try:
            coordinator = ray.get_actor(_coordinator_name(job_id, incarnation), namespace=NAMESPACE)
            observation: Observation = ray.get(coordinator.observe.remote(cursor), timeout=_ANSWER_S)
        except (GetTimeoutError, ActorUnavailableError):  # the latter is a RayActorError, but nobody has died
            return Observation(is_alive=True, cursor=cursor)
        except (ValueError, RayActorError):
            return Observation(is_alive=False, cursor=cursor)
        except RayError as error:
            raise UnavailableError(f"the coordinator of {job_id} could not be asked: {error}") from error
        return observation

    def stop(self, job_id: str, incarnation: int) -> None:
        """The coordinator comes to an end behind a last checkpoint."""
        _tell(job_id, incarnation, "stop")

    def checkpoint(self, job_id: str, incarnation: int) -> None:
        """The coordinator cuts a checkpoint soon."""
        _tell(job_id, incarnation, "checkpoint")

    def scale(self, job_id: str, incarnation: int, workers: int) -> None:
        """So many workers train as soon as there is room."""
        _tell(job_id, incarnation, "scale", workers)

    def remove(self, job_id: str) -> None:
        """No process and no reservation of the job is left, of any incarnation."""
        with _cluster_errors():
            for name in ray.util.list_named_actors():
                if name.startswith(f"{job_id}/"):
                    with suppress(ValueError):  # it has ended by itself
                        ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
            give_back(job_id)


@contextmanager
def _cluster_errors() -> Iterator[None]:
    """Ray's own troubles, as ours: they say nothing about a job."""
    try:
        yield
    except (RayError, ConnectionError, RuntimeError) as error:
        raise UnavailableError(
            f"the Ray cluster does not answer: {str(error).splitlines()[0][:200]}", fix="see `dtrain up`"
        ) from error


def _coordinator_name(job_id: str, incarnation: int) -> str:
    return f"{job_id}/coordinator/{incarnation}"


def _tell(job_id: str, incarnation: int, word: str, *args: int) -> None:
    try:
        coordinator: Any = ray.get_actor(_coordinator_name(job_id, incarnation), namespace=NAMESPACE)
    except ValueError:
        return  # there is none: whoever observes will see
    getattr(coordinator, word).remote(*args)


def _reserve(job_id: str, spec: JobSpec, *, workers: int) -> None:
    """The job has its placement group. One that lost a host before anybody else was left is made anew."""
    if has_lost_room(job_id) and not any(name.startswith(f"{job_id}/trainer/") for name in ray.util.list_named_actors()):
        give_back(job_id)
    if not is_reserved(job_id):
        reserve_free(spec, job_id=job_id, workers=workers)
