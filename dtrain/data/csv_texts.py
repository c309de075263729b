"""Texts of CSV: which are plainly values of a column, and which plainly are not, so that Arrow need not be asked for each."""

from __future__ import annotations

import math
import re

from dtrain.data.schema import Field

_SOUND_BOOL = re.compile(rb"0|1|true|false")
_MAYBE_BOOL = re.compile(rb"[ \t]*(?:0|1|true|false)[ \t]*", re.IGNORECASE)
_SOUND_INTEGER = {
    "int8": re.compile(rb"-?[0-9]{1,2}"),
    "uint8": re.compile(rb"[0-9]{1,2}"),
    "int16": re.compile(rb"-?[0-9]{1,4}"),
    "int32": re.compile(rb"-?[0-9]{1,9}"),
    "int64": re.compile(rb"-?[0-9]{1,18}"),
}
_MAYBE_INTEGER = re.compile(rb"[ \t]*[-+]?(?:0[xX][0-9a-fA-F]+|[0-9]+)[ \t]*")
_SOUND_FLOAT = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?")
_MAYBE_FLOAT = re.compile(rb"[-+ \t0-9.eE]*|[-+ \t]*(?:inf|nan).*", re.IGNORECASE | re.DOTALL)


def fits_column(text: bytes | None, field: Field) -> bool | None:
    """Whether a text is a value of the field's type, or null; None where Arrow alone can say it."""
    if text is None:
        return True
    if field.kind != "number":
        return _is_unicode(text)
    if field.source_dtype == "bool":
        return _judged(text, _SOUND_BOOL, _MAYBE_BOOL)
    if "int" in field.source_dtype:
        return _judged(text, _SOUND_INTEGER[field.source_dtype], _MAYBE_INTEGER)
    return False if _is_too_big(text) else _judged(text, _SOUND_FLOAT, _MAYBE_FLOAT)


def _judged(text: bytes, sound: re.Pattern[bytes], maybe: re.Pattern[bytes]) -> bool | None:
    if sound.fullmatch(text):
        return True
    return None if maybe.fullmatch(text) else False


def _is_too_big(text: bytes) -> bool:
    """Whether it is a number that would become an infinity."""
    try:
        return math.isinf(float(text)) and b"inf" not in text.lower()
    except ValueError:
        return False


def _is_unicode(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
