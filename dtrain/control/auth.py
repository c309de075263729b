"""Who may call: a bearer token on every RPC but health."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from dtrain.errors import AuthError, StorageError
from dtrain.rpc.errors import abort

_OPEN = "/grpc.health.v1.Health/"
_WRONG = AuthError("the token is missing or wrong", fix="use the one in the file that connection.json names")


def token_in(path: Path) -> str:
    """The token in `path`, which is made with a fresh one, mode 0600, if it does not exist; one process at a time may do so.

    Raises:
        StorageError: the file cannot be read or made, or is empty.
    """
    try:
        if not path.exists():
            scratch = path.with_name(f"{path.name}.{os.getpid()}")
            scratch.touch(mode=0o600)
            scratch.write_text(secrets.token_urlsafe(32) + "\n", encoding="utf-8")
            scratch.replace(path)
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"the token in {path} cannot be read or made: {error}", fix="make its folder writable") from error
    if not token:
        raise StorageError(f"{path} holds no token", fix="remove it, and a new one is made")
    return token


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls with the token through, and calls of the health service; refuses all others before anything is read of them."""

    def __init__(self, token: str, *, on_refusal: Callable[[], None]) -> None:
        self._expected = f"Bearer {token}".encode()
        self._on_refusal = on_refusal

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler of the call, or one that refuses it."""
        if details.method.startswith(_OPEN):
            return await continuation(details)
        given = dict(details.invocation_metadata or ()).get("authorization", "")
        if hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._expected):
            return await continuation(details)
        self._on_refusal()
        return grpc.stream_stream_rpc_method_handler(_refuse)  # fits every kind of call: on the wire all are streams


async def _refuse(_: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
    await abort(context, _WRONG)
    yield  # never reached; makes this the generator that gRPC wants
