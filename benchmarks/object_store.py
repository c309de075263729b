"""What the object stores of the cluster that this process has joined hold."""

from __future__ import annotations

from dataclasses import dataclass

import ray


@dataclass(frozen=True, slots=True)
class StoreUse:
    """Of all hosts together."""

    used_bytes: int
    spilled_bytes: int
    """Written to disk because there was no room, since the cluster began."""

    @classmethod
    def now(cls) -> StoreUse:
        """As the hosts say."""
        from ray._private.internal_api import node_stats  # Ray's public ways to ask this need its dashboard

        nodes = [node for node in ray.nodes() if node["Alive"]]
        stats = [node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats for node in nodes]
        return cls(
            used_bytes=sum(found.object_store_bytes_used for found in stats),
            spilled_bytes=sum(found.spilled_bytes_total for found in stats),
        )


def reserved_bytes() -> int:
    """What is taken of the object stores, as the hosts' own books say: also while some of their workers are stopped, which `StoreUse` asks."""
    there, left = ray.cluster_resources(), ray.available_resources()
    return int(there["object_store_memory"] - left.get("object_store_memory", 0.0))
