"""How a message's value is written: the formats by name, and those that need more than their name."""

from __future__ import annotations

import base64
import difflib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator

from dtrain.errors import SpecError
from dtrain.spec.durations import DurationS, problem
from dtrain.spec.secrets import Secret
from dtrain.spec.section import Section

DECODER_PATTERN = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
MESSAGE_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
_MOST_BYTES = 1 << 20
_SECRETS = ("username", "password", "token")


class RegistrySpec(Section):
    """A schema registry that speaks Confluent's protocol. Secrets are references."""

    url: str = Field(description="Its address, as https://registry:8081.")
    username: Literal["none"] | Secret = Field("none", description="For basic authentication: where the user's name is found.")
    password: Literal["none"] | Secret = Field("none", description="For basic authentication: where the password is found.")
    token: Literal["none"] | Secret = Field("none", description="For bearer authentication: where the token is found.")
    ca: str = Field("", description="File of certificates (PEM) to trust in place of the system's.")
    timeout: DurationS = Field(
        5.0,
        ge=0.1,
        le=60,
        json_schema_extra={"minimum": 0.1, "maximum": 60},
        description="Longest wait for an answer; it is asked three times before the job waits for it.",
    )
    wait: DurationS = Field(
        60.0,
        ge=0,
        le=3600,
        json_schema_extra={"minimum": 0, "maximum": 3600},
        description="How long the job waits for a schema that the registry has not (yet), before messages by it are bad; 0 for not at all.",
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if "@" in parts.netloc:
            raise problem("holds credentials", fix="use `username` and `password`, which are references")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise problem("is not an address", fix="write for example https://registry:8081")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _relations(self) -> Self:
        home = "source.format.registry"
        given = {name for name in _SECRETS if getattr(self, name) != "none"}
        for name, other in (("username", "password"), ("password", "username")):
            if name in given and other not in given:
                raise problem(f"is missing beside `{name}`", fix=f"add `{other}: ...`", path=f"{home}.{other}")
        if given == set(_SECRETS):
            raise problem("does not go with `username`", fix="keep one of the two", path=f"{home}.token")
        parts = urlsplit(self.url)
        if given and parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise problem("would send the secret in the clear", fix="write https://...", path=f"{home}.url")
        return self

    def settled(self, folder: Path) -> Self:
        """The same with absolute paths: relative ones begin at `folder`."""
        secrets = {name: value.settled(folder) for name in _SECRETS if (value := getattr(self, name)) != "none"}
        ca = {"ca": str(folder / Path(self.ca).expanduser())} if self.ca else {}
        return self.model_copy(update=secrets | ca)


class AvroFormat(Section):
    """One Avro record a message."""

    type: Literal["avro"] = Field(description="Avro: one record a message, in its binary encoding.")
    definition: dict[str, JsonValue] | str = Field(
        "",
        description="The record's Avro schema, written here or as the path of its file, from the job file's folder. With a registry: what records are read as, by Avro's rules of resolution.",
    )
    registry: Literal["none"] | RegistrySpec = Field(
        "none", description="Where schemas are found by the id that each message begins with: a byte 0 and 4 bytes."
    )

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if not self.definition and self.registry == "none":
            fix = "add `definition: record.avsc`, or `registry: {url: ...}` for messages that begin with a schema's id"
            raise problem("is missing, and so is `registry`", fix=fix, path="source.format.definition")
        return self

    def settled(self, folder: Path) -> Self:
        """The same with what is in the files: it is a part of the job."""
        changes: dict[str, Any] = {}
        if isinstance(self.definition, str) and self.definition:
            try:
                found = json.loads(_read(folder / Path(self.definition).expanduser(), path="source.format.definition"))
            except (ValueError, RecursionError) as error:
                raise SpecError("is not JSON", fix="name an Avro schema's file", path="source.format.definition") from error
            if not isinstance(found, dict):
                raise SpecError("is not a record's schema", fix="name another file", path="source.format.definition")
            changes["definition"] = found
        if self.registry != "none":
            changes["registry"] = self.registry.settled(folder)
        return self.model_copy(update=changes)


class ProtobufFormat(Section):
    """One Protobuf message a message."""

    type: Literal["protobuf"] = Field(description="Protobuf: one message of one type a message.")
    descriptors: str = Field(
        min_length=1,
        description="File of descriptors, from the job file's folder, as `protoc --include_imports --descriptor_set_out` writes it; what is in it becomes a part of the job.",
    )
    message: str = Field(pattern=MESSAGE_PATTERN, description="Full name of the messages' type, as shop.v1.Click.")

    @property
    def descriptor_bytes(self) -> bytes:
        """What is in the file, once the format is settled."""
        return base64.b64decode(self.descriptors.removeprefix("base64:"))

    def settled(self, folder: Path) -> Self:
        """The same with what is in the file: it is a part of the job."""
        if self.descriptors.startswith("base64:"):
            return self
        content = _read(folder / Path(self.descriptors).expanduser(), path="source.format.descriptors")
        return self.model_copy(update={"descriptors": "base64:" + base64.b64encode(content).decode()})


class RawFormat(Section):
    """Whatever a function of the user's makes of it."""

    type: Literal["raw"] = Field(description="raw: a function of yours decodes the messages.")
    decoder: str = Field(
        pattern=DECODER_PATTERN,
        description="module:function in `code`, from a list of records to a pyarrow.RecordBatch with a row for each; see docs/formats.md.",
    )

    def settled(self, folder: Path) -> Self:  # noqa: ARG002 - as the others'
        """The same: what it names is in `code`."""
        return self


Options = AvroFormat | ProtobufFormat | RawFormat
Format = Literal["arrow", "json"] | Annotated[Options, Field(discriminator="type")]

_NEEDS = {
    "avro": "write {type: avro, definition: record.avsc} or {type: avro, registry: {url: ...}}",
    "protobuf": "write {type: protobuf, descriptors: FILE, message: package.Name}",
    "raw": "write {type: raw, decoder: module:function}",
}


_NOT_BUILT = {"parquet": "Parquet", "csv": "CSV", "msgpack": "MessagePack", "thrift": "Thrift", "xml": "XML"}


def checked_format(value: Any) -> Any:
    """The value of `source.format` as it was written; in words where it is plainly none."""
    name = value.get("type") if isinstance(value, dict) else value
    path = "source.format.type" if isinstance(value, dict) else ""
    if isinstance(name, str) and name.lower() in _NOT_BUILT:
        fix = f"write arrow, json or {', '.join(_NEEDS)}; {{type: raw}} takes a decoder of your own"
        raise problem(f"{_NOT_BUILT[name.lower()]} messages are not supported", fix=fix, path=path)
    if not isinstance(value, dict):
        if isinstance(name, str) and name in _NEEDS:
            raise problem(f"{name} needs more than its name", fix=_NEEDS[name])
        return value
    if name is None and "type" not in value:
        if close := difflib.get_close_matches("type", map(str, value), n=1):
            words = "is not a field of `source.format`"
            raise problem(words, fix="did you mean `type`?", path=f"source.format.{close[0]}")
        raise problem("is missing", fix=f"add `type: ...`, one of {', '.join(_NEEDS)}", path=path)
    if name in ("arrow", "json"):
        raise problem(f"{name} has no options", fix=f"write `format: {name}`", path=path)
    if name not in _NEEDS:
        raise problem(f"{json.dumps(name)[:40]} is not known", fix=f"write {', '.join(_NEEDS)}", path=path)
    return value


def _read(file: Path, *, path: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SpecError(f"{file} cannot be read: {error.strerror}", fix="name a file that you may read", path=path) from error
    if len(content) > _MOST_BYTES:
        raise SpecError(f"{file} is larger than 1 MiB", fix="name a file of one schema", path=path)
    return content
