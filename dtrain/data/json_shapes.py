"""The shapes of JSON messages: one object, an object a line, an array of objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

LINES, ARRAY, UNSURE = "lines", "array", "unsure"
NO_OBJECT, NO_ARRAY = "not a JSON object", "not a JSON array"

_LINE_END = re.compile(rb"\n\s+")
_CLOSED_EARLY = re.compile(rb'\](?<=[}\[l\s]\])\s*,\s*"')
"""What stands behind an array that ends before its message does, where the rest may look as if it belonged to it."""
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)|[\[\]{},]', re.DOTALL)


class Shape(NamedTuple):
    """What a value looks like.

    Args:
        kind: `LINES` (of the shape of an object each), `ARRAY`, `UNSURE` (an object over several lines, or else lines of
            which some are bad), or the reason why it is none of them.
        text: without line ends, save between lines.
        num_rows: one a line; for an array, at most so many.
    """

    kind: str
    text: bytes = b""
    num_rows: int = 1

    @property
    def is_bad(self) -> bool:
        """Whether `kind` is a reason."""
        return self.kind not in (LINES, ARRAY, UNSURE)


def shape_of(value: bytes | None) -> Shape:
    """The shape of a value. A line end is a space, as anywhere in JSON, unless there are objects on both sides of it."""
    if value is None:
        return Shape("no value")
    text = value.strip()
    if b"\0" in text:  # which a parser takes for the end
        return Shape(NO_OBJECT)
    if b"\n" in text or b"\r" in text:
        if (shape := _of_tidy_lines(text)) is not None:
            return shape
        text = _LINE_END.sub(b"\n", text.replace(b"\r\n", b"\n").replace(b"\r", b" "))
        if (shape := _of_tidy_lines(text) or _of_lines(text)) is not None:
            return shape
        text = text.replace(b"\n", b" ")
    if is_object(text):
        return Shape(LINES, text)
    if not (text.startswith(b"[") and text.endswith(b"]")):
        return Shape(NO_OBJECT)
    if _CLOSED_EARLY.search(text) and not _is_one_array(text):
        return Shape(NO_ARRAY)
    return Shape(ARRAY, text, text.count(b"{"))


def is_object(text: bytes) -> bool:
    """Whether it has the ends of an object: then no parse of many lines can take a part of one for a part of the next."""
    return text.startswith(b"{") and text.endswith(b"}")


def items_of(array: bytes) -> Iterator[bytes]:
    """The items of an array, as they are written.

    Raises:
        ValueError: it ends before its text does, or not at all.
    """
    depth, begin = 0, 1
    for token in _TOKEN.finditer(array):
        at = token.start()
        mark = array[at : at + 1]
        if mark in (b"[", b"{"):
            depth += 1
        elif mark in (b"]", b"}"):
            depth -= 1
            if depth == 0:
                break
        elif mark == b"," and depth == 1:
            yield array[begin:at].strip()
            begin = at + 1
    if depth or at + 1 != len(array):
        raise ValueError(NO_ARRAY)
    if (last := array[begin:-1].strip()) or begin > 1:
        yield last


def _of_tidy_lines(text: bytes) -> Shape | None:
    """The shape of lines that are of the shape of an object each; None if they are not."""
    num_ends = text.count(b"\n")
    is_tidy = num_ends and is_object(text) and text.count(b"}\n{") == num_ends and b"\r" not in text
    return Shape(LINES, text, num_ends + 1) if is_tidy else None


def _of_lines(text: bytes) -> Shape | None:
    """The shape of several lines of which some are objects; None if they are plainly one value."""
    first, last = text[: text.find(b"\n")].strip(), text[text.rfind(b"\n") + 1 :]
    is_unsure = b"\n" in text and (is_object(first) or is_object(last))
    return Shape(UNSURE, text, text.count(b"\n") + 1) if is_unsure else None


def _is_one_array(text: bytes) -> bool:
    try:
        return all(True for _ in items_of(text))
    except ValueError:
        return False
