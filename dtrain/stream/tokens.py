"""Tokens for OAUTHBEARER: asked for by OAuth's client-credentials grant, kept until they are about to end."""

from __future__ import annotations

import ssl
from threading import Lock
from typing import NamedTuple

import httpx

from dtrain.clock import Clock
from dtrain.errors import AuthError, UnavailableError
from dtrain.spec.security import OAuthSpec

_TIMEOUT_S = 5.0
_LIFE_S = 300.0
"""Of a token whose server does not say how long it lives."""


class Token(NamedTuple):
    """A bearer token, and when it ends, in seconds since 1970."""

    text: str
    ends_at_s: float


class Tokens:
    """Gives a token that still lives for a while.

    Threads: any; the clients ask from theirs.

    Args:
        spec: whom to ask.
        ca: certificates to trust besides the system's; empty for none.
        clock: wall time.
    """

    def __init__(self, spec: OAuthSpec, *, ca: str, clock: Clock) -> None:
        self._spec = spec
        self._ca = ca
        self._clock = clock
        self._lock = Lock()
        self._token = Token("", 0.0)
        self._renew_at_s = 0.0

    def token(self) -> Token:
        """A token; another one when a fifth of its life is left.

        Raises:
            AuthError: the server refuses, or a secret is not there.
            UnavailableError: the server does not answer, or gives none.
        """
        with self._lock:
            now_s = self._clock.wall_s()
            if now_s >= self._renew_at_s:
                text, life_s = self._ask()
                self._token, self._renew_at_s = Token(text, now_s + life_s), now_s + 0.8 * life_s
            return self._token

    def _ask(self) -> tuple[str, float]:
        url, trusted = self._spec.token_url, ssl.create_default_context()
        if self._ca:
            trusted.load_verify_locations(self._ca)
        wanted = {"grant_type": "client_credentials"} | ({"scope": self._spec.scope} if self._spec.scope else {})
        client = (self._spec.client_id.read(), self._spec.client_secret.read())
        try:
            answer = httpx.post(url, data=wanted, auth=client, timeout=_TIMEOUT_S, verify=trusted)
        except httpx.HTTPError as error:
            raise UnavailableError(f"the token server {url} does not answer: {error}", fix="see whether it is well") from None
        if answer.status_code in (400, 401, 403):
            words = f"the token server {url} refuses: {answer.status_code} {answer.reason_phrase}"
            raise AuthError(words, fix="correct what `source.security.oauth` refers to, and resume the job")
        try:
            found = answer.raise_for_status().json()
            return str(found["access_token"]), float(found.get("expires_in", _LIFE_S))
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            words = f"the token server {url} gives no token: {answer.status_code} {answer.reason_phrase}"
            raise UnavailableError(words, fix="see whether it is well") from None
