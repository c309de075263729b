"""Room: the placement groups in which a job's trainers have their seats."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from dtrain.errors import UnavailableError
from dtrain.spec.job import JobSpec

_GONE_S = 10.0


def group_name(job_id: str) -> str:
    """Of the job's placement group; those that scaling adds have names that begin so."""
    return f"dtrain/{job_id}"


def reserve(spec: JobSpec, *, name: str, size: int) -> PlacementGroup:
    """Room for `size` workers, all of it or none, as soon as the cluster has it; it outlives who asked."""
    workers = spec.workers
    bundle = {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}
    return placement_group([dict(bundle) for _ in range(size)], strategy="PACK", name=name, lifetime="detached")


def reserve_free(spec: JobSpec, *, job_id: str, workers: int) -> PlacementGroup:
    """Room for as many of `workers` and the spares as the cluster has now, and for the fewest in any case."""
    free = ray.available_resources()
    by_cpu = int(free.get("CPU", 0.0) / spec.workers.cpus)
    by_gpu = int(free.get("GPU", 0.0) / spec.workers.gpus) if spec.workers.gpus else by_cpu
    size = max(spec.workers.min, min(workers + spec.workers.spares, by_cpu, by_gpu))
    return reserve(spec, name=group_name(job_id), size=size)


def is_reserved(job_id: str) -> bool:
    """The job has its room, or waits for it."""
    return any(entry["name"] == group_name(job_id) for entry in _entries(job_id).values())


def groups_of(job_id: str) -> list[PlacementGroup]:
    """The job's groups, the one that it began with first; also those that wait for room."""
    return [ray.util.get_placement_group(name) for name in sorted(entry["name"] for entry in _entries(job_id).values())]


def has_lost_room(job_id: str) -> bool:
    """A host has gone with seats of the job, and the cluster has had no others for them yet."""
    return any(entry["state"] == "RESCHEDULING" for entry in _entries(job_id).values())


def give_back(job_id: str) -> None:
    """None of the job's room is left, and nobody who had a seat in it.

    Raises:
        UnavailableError: Ray's head does not say so in time.
    """
    deadline_s = time.monotonic() + _GONE_S
    while found := _entries(job_id):
        for identifier in found:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(identifier))))
        if time.monotonic() > deadline_s:
            raise UnavailableError(f"the Ray cluster does not let go of {job_id}'s room", fix="see the log of Ray's head")
        time.sleep(0.05)


def _entries(job_id: str) -> dict[str, Any]:
    """What Ray's head knows of the job's groups, by their ids."""
    prefix = f"{group_name(job_id)}/"
    entries = placement_group_table().items()
    return {key: entry for key, entry in entries if f"{entry['name']}/".startswith(prefix) and entry["state"] != "REMOVED"}
