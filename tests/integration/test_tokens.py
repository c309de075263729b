"""Tokens: kept while they live, and what is said when there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dtrain.errors import AuthError, UnavailableError
from dtrain.spec.security import OAuthSpec
from dtrain.stream.tokens import Tokens
from tests.support.job_world import HandClock
from tests.support.secured import CLIENT_ID, CLIENT_SECRET, TokenServer, token_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenServer]:
    monkeypatch.setenv("CLIENT_ID", CLIENT_ID)
    monkeypatch.setenv("CLIENT_SECRET", CLIENT_SECRET)
    with token_server() as server:
        yield server


def tokens_of(url: str, clock: HandClock) -> Tokens:
    spec = {"token_url": url, "client_id": {"env": "CLIENT_ID"}, "client_secret": {"env": "CLIENT_SECRET"}}
    return Tokens(OAuthSpec.model_validate(spec), ca="", clock=clock)


def test_token_is_kept_until_a_fifth_of_its_life_is_left(server: TokenServer) -> None:
    server.life_s = 100.0
    tokens = tokens_of(server.url, clock := HandClock())
    first = tokens.token()
    clock.now_s += 79
    assert tokens.token() == first
    clock.now_s += 2
    assert tokens.token().ends_at_s == pytest.approx(first.ends_at_s + 81)
    assert len(server.asked) == 2


@pytest.mark.parametrize(("status", "kind"), [(400, AuthError), (401, AuthError), (403, AuthError), (500, UnavailableError)])
def test_refusal_names_the_server_and_no_secret(server: TokenServer, status: int, kind: type[Exception]) -> None:
    server.status = status
    with pytest.raises(kind, match=f"{server.url} .*{status}") as caught:
        tokens_of(server.url, HandClock()).token()
    assert CLIENT_SECRET not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


def test_server_that_is_not_there_is_unavailable(server: TokenServer) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1/token does not answer"):
        tokens_of("http://127.0.0.1:1/token", HandClock()).token()
