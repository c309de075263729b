"""What the environment says: the only place that reads it.

DTRAIN_HOME      folder of this dtrain: token, jobs, logs, what runs; ~/.dtrain
DTRAIN_ADDRESS   host:port of a control plane; by default the one that `dtrain up` started in the home
DTRAIN_TOKEN     its bearer token; by default the one in the home
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


def client(*, timeout_s: float = 10.0) -> Client:
    """A client of the control plane that is meant; close it.

    Raises:
        UnavailableError: none was started.
        AuthError: no token, or one that cannot be read.
    """
    from dtrain.client.client import Client

    address, token = os.environ.get("DTRAIN_ADDRESS"), os.environ.get("DTRAIN_TOKEN")
    if address is None and token is None:
        return Client.from_home(home(), timeout_s=timeout_s)
    if address is None:
        from dtrain.rpc.connection import Connection

        address = Connection.load(home()).address
    if token is None:
        try:
            token = (home() / "token").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise AuthError(f"there is no token for {address}", fix="set DTRAIN_TOKEN") from error
    return Client(address, token=token, timeout_s=timeout_s)
