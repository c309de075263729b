"""How a job shows a Kafka cluster who it is, and makes sure whom it talks to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from dtrain.spec.durations import problem
from dtrain.spec.secrets import Secret
from dtrain.spec.section import Section


class OAuthSpec(Section):
    """Where tokens for OAUTHBEARER come from: OAuth 2.0, client credentials (RFC 6749, section 4.4)."""

    token_url: str = Field(description="Address that gives tokens: https://... (http:// on this machine alone).")
    client_id: Secret = Field(description="The client's id, by reference.")
    client_secret: Secret = Field(description="The client's secret, by reference.")
    scope: str = Field("", description="What the token shall be good for, if the server wants to know.")

    @field_validator("token_url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        parts = urlsplit(value)
        if "@" in parts.netloc:
            raise problem("holds credentials", fix="use `client_id` and `client_secret`, which are references")
        if parts.scheme == "https" and parts.hostname:
            return value
        if parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1"):
            return value
        raise problem("would send the client's secret in the clear", fix="write https://...")

    def settled(self, folder: Path) -> Self:
        """The same with absolute paths: relative ones begin at `folder`."""
        ours = {"client_id": self.client_id.settled(folder), "client_secret": self.client_secret.settled(folder)}
        return self.model_copy(update=ours)


class SecuritySpec(Section):
    """Encryption and authentication. Secrets are references; the certificates' owners are always checked."""

    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", description="As the broker's listener: whether it is encrypted (ssl) and wants a login (sasl)."
    )
    mechanism: Literal["none", "plain", "scram-sha-256", "scram-sha-512", "oauthbearer"] = Field(
        "none", description="How the login goes, with sasl."
    )
    username: Literal["none"] | Secret = Field("none", description="With plain and scram: where the user's name is found.")
    password: Literal["none"] | Secret = Field("none", description="With plain and scram: where the password is found.")
    oauth: Literal["none"] | OAuthSpec = Field("none", description="With oauthbearer: where tokens come from.")
    ca: str = Field("", description="With ssl: file of certificates (PEM) to trust in place of the system's.")
    cert: str = Field("", description="With ssl: file of this client's own certificate (PEM), where the broker asks for one.")
    key: str = Field("", description="With ssl: file of that certificate's private key (PEM).")

    @model_validator(mode="after")
    def _relations(self) -> Self:
        required, possible = self._fields()
        for name in ("mechanism", "username", "password", "oauth", "ca", "cert", "key"):
            is_given = getattr(self, name) not in ("none", "")
            what = f"mechanism {self.mechanism}" if name in ("username", "password", "oauth") else f"protocol {self.protocol}"
            path = f"source.security.{name}"
            if is_given and name not in possible:
                raise problem(f"means nothing with {what}", fix="remove it, or correct that", path=path)
            if name in required and not is_given:
                raise problem(f"is missing with {what}", fix=f"add `{name}: ...`, see docs/security.md", path=path)
        return self

    def settled(self, folder: Path) -> Self:
        """The same with absolute paths: relative ones begin at `folder`."""
        changes: dict[str, Any] = {name: str(folder / Path(path).expanduser()) for name, path in self.files()}
        for name in ("username", "password", "oauth"):
            if isinstance(part := getattr(self, name), Secret | OAuthSpec):
                changes[name] = part.settled(folder)
        return self.model_copy(update=changes)

    def files(self) -> Iterator[tuple[str, str]]:
        """The certificates that are named: field and path."""
        yield from ((name, path) for name in ("ca", "cert", "key") if (path := getattr(self, name)))

    def _fields(self) -> tuple[set[str], set[str]]:
        """Those that must be there, and those that may."""
        is_encrypted, is_login = self.protocol.endswith("ssl"), self.protocol.startswith("sasl")
        required = {"mechanism"} if is_login else set[str]()
        if is_login and self.mechanism != "none":
            required |= {"oauth"} if self.mechanism == "oauthbearer" else {"username", "password"}
        if is_encrypted and (self.cert or self.key):
            required |= {"cert", "key"}
        return required, required | ({"ca", "cert", "key"} if is_encrypted else set())
