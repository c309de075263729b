"""Our errors to gRPC's and back, with google.rpc details: kind, reason and fix survive the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from dtrain.errors import AuthError, DtrainError, InputError, InternalError, SpecError, StateError, UnavailableError

DOMAIN = "dtrain"
RETRY_AFTER_MS = 500
"""What RetryInfo says for an error that may go away."""
_LONGEST_TEXT_BYTES = 600
"""Of a reason or fix on the wire: details travel in HTTP/2 headers, of which clients take 8 KiB in all."""


def to_status(error: DtrainError) -> status_pb2.Status:
    """The error as google.rpc.Status: ErrorInfo always, BadRequest for a field, RetryInfo for what may go away."""
    texts = {"reason": error.reason, "fix": error.fix}
    if isinstance(error, SpecError):
        texts |= {"path": error.path, "line": str(error.line), "file": error.file}
    texts = {key: _cut(text) for key, text in texts.items()}
    details = [error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN, metadata=texts)]
    if isinstance(error, SpecError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=texts["path"], description=texts["reason"])
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retriable:
        info = error_details_pb2.RetryInfo()
        info.retry_delay.FromMilliseconds(RETRY_AFTER_MS)
        details.append(info)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=_cut(str(error)))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: DtrainError) -> NoReturn:
    """The call ends with `error`, its details in the trailing metadata. Never returns."""
    answer = rpc_status.to_status(to_status(error))
    await context.abort(answer.code, answer.details, answer.trailing_metadata)
    raise AssertionError("abort returned")


def from_call(call: grpc.RpcError, *, address: str) -> DtrainError:
    """The error that the server raised, or what gRPC's own failure means to a user."""
    assert isinstance(call, grpc.Call)  # noqa: S101 what stubs raise is both; types-grpcio does not know
    status = _status_of(call)
    for packed in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info) and info.domain == DOMAIN and info.reason in _KINDS:
            return _rebuilt(_KINDS[info.reason], dict(info.metadata))
    return _foreign(call.code(), call.details() or "no details", address)


def _cut(text: str) -> str:
    return text.encode(errors="replace")[:_LONGEST_TEXT_BYTES].decode(errors="ignore")


def _status_of(call: grpc.Call) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)
    except ValueError:  # details that contradict the status: not from our server
        return None


def _rebuilt(kind: type[DtrainError], texts: dict[str, str]) -> DtrainError:
    reason, fix = texts.get("reason", ""), texts.get("fix", "")
    if issubclass(kind, SpecError):
        line = texts.get("line", "0")
        path, file = texts.get("path", ""), texts.get("file", "")
        return kind(reason, fix=fix, path=path, line=int(line) if line.isdigit() else 0, file=file)
    return kind(reason, fix=fix)


def _foreign(code: grpc.StatusCode, details: str, address: str) -> DtrainError:
    if code is grpc.StatusCode.UNAVAILABLE:
        return UnavailableError(f"no dtrain answers at {address} ({details})", fix="start it with: dtrain up")
    if code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
        return UnavailableError(f"dtrain at {address} did not answer in time ({details})", fix="try again")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return InputError(f"the request is too large for dtrain at {address} ({details})", fix="make it smaller")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return UnavailableError(f"dtrain at {address} has too much to do ({details})", fix="try again")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return StateError(f"what answers at {address} cannot do this ({details})", fix="use a client and server of one version")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return AuthError(f"dtrain at {address} does not accept the token", fix="use the token of the dtrain that runs there")
    return InternalError(f"{code.name}: {details}")


def _tree(kind: type[DtrainError]) -> Iterator[type[DtrainError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


_KINDS = {kind.__name__: kind for kind in _tree(DtrainError)}
