"""Documents: small JSON files that carry their own digest, so that no flipped bit is ever believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from dtrain.errors import CorruptError
from dtrain.steplog.entries import canonical


def write_document(value: Mapping[str, Any]) -> bytes:
    """`value` as canonical JSON, with a field `sha256` over the canonical JSON of the rest."""
    return canonical({**value, "sha256": hashlib.sha256(canonical(value)).hexdigest()})


def read_document(content: bytes, *, what: str) -> dict[str, Any]:
    """The value that `write_document` wrote, without its digest.

    Args:
        content: the document; only the very bytes that would be written again are accepted.
        what: names it in the error.

    Raises:
        CorruptError: these are not the bytes that were written.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{what} is not JSON") from error
    if not isinstance(value, dict) or value.pop("sha256", None) is None or write_document(value) != content:
        raise CorruptError(f"{what} does not match its digest")
    return value
