"""A source without a job file: a broker's address and a topic, as a user typed them."""

from __future__ import annotations

from pydantic import ValidationError

from dtrain.errors import InputError
from dtrain.spec.job import SourceSpec


def source_at(bootstrap: str, *, topic: str) -> SourceSpec:
    """The source with everything else as it is by default.

    Raises:
        InputError: the address is none, or no topic can be called so.
    """
    try:
        return SourceSpec(topic=topic, bootstrap=bootstrap)
    except ValidationError as error:
        first = error.errors()[0]
        reason, _, fix = str(first["msg"]).partition("; ")
        if "bootstrap" in first["loc"]:
            raise InputError(reason, fix=fix) from error
        fix = "use letters, digits, '.', '_' and '-', at most 249"
        raise InputError(f"no topic can be called {topic!r}", fix=fix) from error
