"""Credentials: what a client needs to connect, out of what the job file refers to."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dtrain.clock import Clock
from dtrain.errors import AuthError
from dtrain.spec.secrets import Secret
from dtrain.spec.security import SecuritySpec
from dtrain.stream.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Credentials:
    """As the clients want them; empty where the brokers want none. Secrets are left out of what is printed.

    Args:
        protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, or NONE.
        ca: file of certificates to trust; empty for the system's.
        cert: file of the client's own.
        key: file of its private key.
        tls: the three of them, loaded; None without encryption.
        username: for PLAIN and SCRAM.
        password: for PLAIN and SCRAM.
        tokens: for OAUTHBEARER.
    """

    protocol: str
    mechanism: str
    ca: str
    cert: str
    key: str
    tls: ssl.SSLContext | None = None
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tokens: Tokens | None = None


def credentials_of(spec: SecuritySpec, *, clock: Clock) -> Credentials:
    """What `spec` refers to, as it is now.

    Raises:
        AuthError: something is not there, or the token's server refuses.
        UnavailableError: the token's server does not answer.
    """
    tls = _tls(spec) if spec.protocol.endswith("ssl") else None
    tokens = None if spec.oauth == "none" else Tokens(spec.oauth, ca=spec.ca, clock=clock)
    if tokens is not None:
        tokens.token()  # so that a refusal is heard in its own words, not as a client's failure to connect
    return Credentials(
        protocol=spec.protocol.upper(),
        mechanism=spec.mechanism.upper(),
        ca=spec.ca,
        cert=spec.cert,
        key=spec.key,
        tls=tls,
        username=_read(spec.username),
        password=_read(spec.password),
        tokens=tokens,
    )


def _read(secret: Literal["none"] | Secret) -> str:
    return secret.read() if isinstance(secret, Secret) else ""


def _tls(spec: SecuritySpec) -> ssl.SSLContext:
    """The certificates, which are all there and fit."""
    fix = "put it where the job's processes run, and resume the job"
    for name, path in spec.files():
        if not Path(path).is_file():
            raise AuthError(f"`source.security.{name}`: there is no file {path} here", fix=fix)
    try:
        context = ssl.create_default_context(cafile=spec.ca or None)
    except (ssl.SSLError, OSError) as error:
        raise AuthError(f"`source.security.ca`: {spec.ca} holds no certificates: {error}", fix=fix) from error
    try:
        if spec.cert:
            context.load_cert_chain(spec.cert, spec.key)
    except (ssl.SSLError, OSError) as error:
        words = f"`source.security.cert`: {spec.cert} is no certificate of the key {spec.key}: {error}"
        raise AuthError(words, fix="write both as PEM, the key without a password") from error
    return context
