"""connection.json: where a running dtrain is found, written by the server, read by clients."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from dtrain.errors import AuthError, CorruptError, InputError, UnavailableError

FILE = "connection.json"


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of `address`.

    Raises:
        InputError: it is not host:port.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"{address!r} is not host:port", fix="write for example 127.0.0.1:7400")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach a control plane."""

    address: str
    token_file: str
    metrics_address: str = ""
    pid: int = 0

    def save(self, home: Path) -> None:
        """`<home>/connection.json` is this, from one moment to the next."""
        scratch = home / f"{FILE}.{os.getpid()}"
        scratch.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        scratch.replace(home / FILE)

    @classmethod
    def load(cls, home: Path) -> Connection:
        """What `save` wrote.

        Raises:
            UnavailableError: there is none: no dtrain was started with this home.
            CorruptError: the file is something else.
        """
        try:
            value = json.loads((home / FILE).read_text(encoding="utf-8"))
            return cls(**{key: value[key] for key in cls.__dataclass_fields__ if key in value})
        except OSError as error:
            raise UnavailableError(f"no dtrain runs with the home {home}", fix="start it with: dtrain up") from error
        except (ValueError, TypeError) as error:
            raise CorruptError(f"{home / FILE} cannot be read", fix="remove it and run: dtrain up") from error

    def token(self) -> str:
        """The bearer token. Raises `AuthError` when its file cannot be read."""
        try:
            return Path(self.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AuthError(
                f"the token in {self.token_file} cannot be read", fix="set DTRAIN_TOKEN, or ask its owner"
            ) from error
