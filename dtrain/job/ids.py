"""Names: of jobs, and of what belongs to them."""

from __future__ import annotations

import re
import secrets

from dtrain.errors import InputError

LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
"""An RFC 1123 label: what every name that reaches a path, a URL or Kubernetes must match."""

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def check_label(text: str, what: str) -> str:
    """`text`, if it is an RFC 1123 label.

    Raises:
        InputError: it is not.
    """
    if not LABEL.fullmatch(text):  # `$` alone would let a newline at the end pass
        raise InputError(
            f"{what} {text[:80]!r} is not a name",
            fix="use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        )
    return text


def new_job_id(name: str) -> str:
    """A fresh id that begins with the job's name, e.g. `flights-x7k2p`."""
    return f"{name[:56]}-{''.join(secrets.choice(_ALPHABET) for _ in range(5))}"
