"""What kinds of bad rows there are: a bounded number, whatever the reasons say."""

from __future__ import annotations

import re

KINDS = ("value", "missing", "null", "shape", "type", "range", "other")
"""No or an undecodable value; a column that is missing; a null; a wrong shape; a wrong type; a value out of range."""

_COLUMN = re.compile(r"^column (?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"):? (.*)$", re.DOTALL)
_WORDS = (
    ("is missing", "missing"),
    ("is there twice", "missing"),
    ("is null", "null"),
    ("has not the shape", "shape"),
    ("does not fit", "range"),
    ("is NaN or infinite", "range"),
    ("is negative", "range"),
    ("is longer than", "range"),
    ("is not in the vocabulary", "range"),
    (" is not ", "type"),
)


def kind_of(reason: str) -> str:
    """Which of `KINDS` a reject's reason is of."""
    found = _COLUMN.match(reason)
    if found is None:
        return "value"
    return next((kind for words, kind in _WORDS if words in found[1]), "other")
