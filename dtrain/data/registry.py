"""A schema registry that speaks Confluent's protocol: schemas by their ids."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from typing import Any

import httpx

from dtrain.data.missing_schemas import no_schema
from dtrain.errors import AuthError, InputError, UnavailableError
from dtrain.spec.formats import RegistrySpec
from dtrain.spec.secrets import Secret

MOST_BYTES = 4 << 20
"""Of an answer."""

_PAUSES_S = (0.1, 0.5)
"""Between the times that it is asked."""

_FIX = "see whether it is well; the job waits for it"


class UnknownSchemaError(Exception):
    """No Avro schema that can be read by has this id; the text says why."""


class MissingSchemaError(UnknownSchemaError):
    """The registry has no schema of this id now; it may have one later."""


class Registry:
    """Asks a registry. What it answers under an id never changes, by its contract.

    Args:
        spec: where it is, and how to log in.
    """

    def __init__(self, spec: RegistrySpec) -> None:
        self._spec = spec
        self._client: httpx.Client | None = None

    def schema(self, schema_id: int) -> Mapping[str, Any]:
        """The definition of an Avro schema.

        Blocking: three times `timeout`, and the pauses between.

        Raises:
            MissingSchemaError: the registry has none of this id.
            UnknownSchemaError: it has one that is not of Avro.
            UnavailableError: it does not answer, or not with a schema.
            AuthError: it refuses, or a secret is not there.
        """
        for pause_s in _PAUSES_S:
            try:
                return self._ask(schema_id)
            except UnavailableError:
                time.sleep(pause_s)
        return self._ask(schema_id)

    def _ask(self, schema_id: int) -> Mapping[str, Any]:
        status, content = self._get(f"{self._spec.url}/schemas/ids/{schema_id}")
        if status == httpx.codes.NOT_FOUND:
            raise MissingSchemaError(no_schema(schema_id))
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            fix = "correct what `source.format.registry` refers to, and resume the job"
            raise AuthError(f"the schema registry {self._spec.url} refuses ({status})", fix=fix)
        if status != httpx.codes.OK:
            raise self._unavailable(f"answers {status}")
        try:
            found = json.loads(content)
            text, kind = found["schema"], found.get("schemaType", "AVRO")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise self._unavailable("does not answer as a registry") from None
        if kind != "AVRO":
            raise UnknownSchemaError(f"schema {schema_id} is not of Avro")
        if found.get("references"):
            raise UnknownSchemaError(f"schema {schema_id} refers to others, which is not supported")
        try:
            return json.loads(text)  # type: ignore[no-any-return]
        except (ValueError, TypeError, RecursionError):
            raise UnknownSchemaError(f"schema {schema_id} is not JSON") from None

    def _get(self, url: str) -> tuple[int, bytes]:
        if self._client is None:
            self._client = self._open()
        deadline_s = time.monotonic() + self._spec.timeout
        try:
            with self._client.stream("GET", url) as answer:
                content = b""
                for part in answer.iter_raw(64 << 10):
                    content += part
                    if len(content) > MOST_BYTES:
                        raise self._unavailable(f"answers with more than {MOST_BYTES >> 20} MiB")
                    if time.monotonic() > deadline_s:
                        raise self._unavailable("is too slow")
                return answer.status_code, content
        except httpx.HTTPError as error:
            raise self._unavailable(f"does not answer: {type(error).__name__}") from None

    def _open(self) -> httpx.Client:
        spec, auth = self._spec, None
        headers = {"Accept": "application/vnd.schemaregistry.v1+json", "Accept-Encoding": "identity"}
        if isinstance(spec.username, Secret) and isinstance(spec.password, Secret):
            auth = httpx.BasicAuth(spec.username.read(), spec.password.read())
        if isinstance(spec.token, Secret):
            headers["Authorization"] = f"Bearer {spec.token.read()}"
        try:
            trusted = ssl.create_default_context(cafile=spec.ca or None)
        except OSError as error:
            words = f"`source.format.registry.ca`: {spec.ca} holds no certificates"
            raise InputError(words, fix="name a file of certificates (PEM), where the job's processes run") from error
        return httpx.Client(headers=headers, auth=auth, verify=trusted, timeout=spec.timeout, trust_env=False)

    def _unavailable(self, what: str) -> UnavailableError:
        return UnavailableError(f"the schema registry {self._spec.url} {what}", fix=_FIX)
