"""Whether a server answers calls: gRPC's health service, which wants no token."""

from __future__ import annotations

from collections.abc import Callable

import grpc

_CHECK = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}; two bytes spare a probe the import of its classes


def is_serving(address: str, *, timeout_s: float = 5.0) -> bool:
    """The server at `address` says that it serves.

    Blocking: for `timeout_s` at most.
    """
    with grpc.insecure_channel(address) as channel:
        check: Callable[..., bytes] = channel.unary_unary(_CHECK)
        try:
            return check(b"", timeout=timeout_s) == _SERVING
        except grpc.RpcError:
            return False
