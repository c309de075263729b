"""What the environment says to commands. (Secrets are read where they are used: `spec/secrets.py`.)

DTRAIN_HOME      folder of this dtrain: token, jobs, logs, what runs; ~/.dtrain
DTRAIN_ADDRESS   host:port of a control plane; by default the one that `dtrain up` started in the home
DTRAIN_TOKEN     its bearer token; by default the one in the home
KAFKA_BOOTSTRAP  host:port of a Kafka broker, for the commands about topics; localhost:9092
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dtrain.errors import AuthError

if TYPE_CHECKING:
    from dtrain.client.client import Client


def environment() -> Mapping[str, str]:
    """Every variable of this process."""
    return os.environ


def home() -> Path:
    """The home's folder, absolute; it need not exist."""
    named = os.environ.get("DTRAIN_HOME")
    return Path(named).expanduser().absolute() if named else Path.home() / ".dtrain"


def bootstrap() -> str:
    """Where Kafka answers, if nothing else is said."""
    return os.environ.get("KAFKA_BOOTSTRAP", "localhost:9092")


def client(*, timeout_s: float = 10.0) -> Client:
    """A client of the control plane that is meant; close it.

    Raises:
        UnavailableError: none was started.
        AuthError: no token, or one that cannot be read.
    """
    from dtrain.client.client import Client
    from dtrain.rpc.connection import Connection

    address, token = os.environ.get("DTRAIN_ADDRESS"), os.environ.get("DTRAIN_TOKEN")
    found = Connection.load(home()) if address is None else Connection(address, str(home() / "token"))
    bearer = found.token() if token is None else token.strip()
    if not (bearer.isascii() and bearer.isprintable()):
        raise AuthError(
            "the token has characters that no token has", fix="set DTRAIN_TOKEN to the one in the server's token file"
        )
    return Client(found.address, token=bearer, timeout_s=timeout_s)
