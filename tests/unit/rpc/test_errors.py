from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from dtrain import errors
from dtrain.rpc.errors import from_call, to_status


def _kinds(kind: type[errors.DtrainError]) -> list[type[errors.DtrainError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _kinds(child))]


class Call(grpc.RpcError, grpc.Call):
    """What a stub raises, made from what a server sends."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: tuple[tuple[str, bytes], ...] = ()) -> None:
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._metadata


for _name in Call.__abstractmethods__:  # the rest of grpc.Call is not asked for
    setattr(Call, _name, lambda *_: None)
Call.__abstractmethods__ = frozenset()


def over_the_wire(error: errors.DtrainError) -> errors.DtrainError:
    answer = rpc_status.to_status(status_pb2.Status.FromString(to_status(error).SerializeToString()))
    return from_call(Call(answer.code, answer.details, answer.trailing_metadata), address="here:1")


@pytest.mark.parametrize("kind", _kinds(errors.DtrainError))
def test_error_comes_back_with_its_kind_reason_and_fix(kind: type[errors.DtrainError]) -> None:
    found = over_the_wire(kind("the disk is full", fix="free some: 5 % änderst du"))
    assert type(found) is kind
    assert (found.reason, found.fix) == ("the disk is full", "free some: 5 % änderst du")


def test_spec_error_comes_back_with_its_place_and_names_the_field_for_other_clients() -> None:
    error = errors.SpecError("is too large", fix="use 8", path="workers.max", line=14, file="job.yaml")
    found = over_the_wire(error)
    assert str(found) == str(error)
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in to_status(error).details)
    assert bad.field_violations[0].field == "workers.max"


@pytest.mark.parametrize("kind", _kinds(errors.DtrainError))
def test_retry_info_is_there_exactly_for_what_may_go_away(kind: type[errors.DtrainError]) -> None:
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in to_status(kind("no")).details) is kind.retriable


def test_endless_texts_are_cut_because_headers_are_bounded() -> None:
    endless = 10**6 * "\N{EURO SIGN}\ud800"
    assert to_status(errors.SpecError(endless, fix=endless, path=endless, file=endless)).ByteSize() < 4_500


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_foreign_failure_becomes_an_error_of_ours(code: grpc.StatusCode) -> None:
    found = from_call(Call(code, "from elsewhere"), address="here:1")
    assert isinstance(found, errors.DtrainError)
    assert "here:1" in str(found) or code.name in str(found)


def test_server_that_is_not_there_is_named_with_the_fix() -> None:
    found = from_call(Call(grpc.StatusCode.UNAVAILABLE, "refused"), address="here:1")
    assert isinstance(found, errors.UnavailableError)
    assert "here:1" in found.reason
    assert "dtrain up" in found.fix


def test_details_that_contradict_the_status_are_not_believed() -> None:
    answer = rpc_status.to_status(to_status(errors.StateError("no")))
    found = from_call(Call(grpc.StatusCode.INTERNAL, "other", answer.trailing_metadata), address="here:1")
    assert type(found) is errors.InternalError
