"""The frames of an Arrow IPC stream: what its bodies come to when unpacked, before anything of them is unpacked.

The layout is that of Arrow's format, `Message.fbs`, as flatbuffers. Nothing is verified here: Arrow does that when it reads.
Where a stream is sound, both see the same; where it is not, whatever is found here only ever leads to a refusal.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_HEAD = struct.Struct("<ii")
_I32, _U32, _U16, _I64 = (struct.Struct(f"<{code}") for code in "iIHq")
_BUFFER = struct.Struct("<qq")
_SLOTS = struct.Struct("<HHH")
"""Of a message's table: kind, header, size of the body; a version stands before them."""
_CONTINUED = -1
_DICTIONARY, _RECORDS = 2, 3
BrokenError = struct.error


class Frames(NamedTuple):
    """A stream's outline: where its first frame and itself end, its bodies' bytes when unpacked, and how many frames there are."""

    first_end: int
    end: int
    num_bytes: int
    num_frames: int


def frames_of(value: bytes, start: int) -> Frames:
    """The outline of the stream in `value` from `start` on.

    A dictionary counts once more for every later one, because what is added to one copies it.

    Raises:
        BrokenError: there is no such stream.
    """
    at, first_end, num_bytes, dictionary_bytes, num_frames = start, 0, 0, 0, 0
    while at < len(value):
        marker, size = _HEAD.unpack_from(value, at)
        at += _HEAD.size
        if marker != _CONTINUED or size < 0:
            raise BrokenError("not a frame")
        if size == 0:
            break
        body = at + size
        kind, header, body_bytes = _message(value, at)
        if kind == _DICTIONARY:
            dictionary_bytes += _unpacked(value, _target(value, _place(value, header, 1)), body, body_bytes)
            num_bytes += dictionary_bytes
        elif kind == _RECORDS:
            num_bytes += _unpacked(value, header, body, body_bytes)
        at = body + body_bytes
        first_end = first_end or at
        num_frames += 1
    return Frames(first_end, at, num_bytes, num_frames)


def is_swapped(schema: bytes) -> bool:
    """Whether the frame of a schema says that numbers begin with their highest byte."""
    endianness = _place(schema, _message(schema, _HEAD.size)[1], 0)
    return bool(endianness and schema[endianness])


def dictionary_of(message: bytes) -> tuple[int, bool]:
    """The id of the dictionary that a message holds, and whether it is added to the one that there is."""
    header = _message(message, _HEAD.size)[1]
    dictionary_id, is_delta = _place(message, header, 0), _place(message, header, 2)
    return (_I64.unpack_from(message, dictionary_id)[0] if dictionary_id else 0), bool(is_delta and message[is_delta])


def _message(value: bytes, at: int) -> tuple[int, int, int]:
    """Its kind, where its header's table is, and the bytes of its body."""
    table = _target(value, at)
    layout = table - int(_I32.unpack_from(value, table)[0])
    num_slots = (_U16.unpack_from(value, layout)[0] - 4) // 2
    kind, header, body = _SLOTS.unpack_from(value, layout + 6)
    body_bytes = _I64.unpack_from(value, table + body)[0] if body and num_slots > 3 else 0
    if not kind or not header or body_bytes < 0:
        raise BrokenError("not a message")
    return value[table + kind], _target(value, table + header), body_bytes


def _unpacked(value: bytes, batch: int, body: int, body_bytes: int) -> int:
    """What the buffers of a record batch come to; each packed one begins with its size, −1 for one that is not packed."""
    if not _place(value, batch, 3):
        return body_bytes
    buffers = _target(value, _place(value, batch, 2))
    first = buffers + _U32.size
    stop = first + _BUFFER.size * _U32.unpack_from(value, buffers)[0]
    total = body_bytes
    for offset, length in _BUFFER.iter_unpack(value[first:stop]):
        if length > 0:
            total += max(0, _I64.unpack_from(value, body + offset)[0])
    return total


def _place(value: bytes, table: int, slot: int) -> int:
    """Where the table's field is; 0 where it is left out."""
    layout = table - int(_I32.unpack_from(value, table)[0])
    entry = 4 + 2 * slot
    if entry >= _U16.unpack_from(value, layout)[0]:
        return 0
    offset = int(_U16.unpack_from(value, layout + entry)[0])
    return table + offset if offset else 0


def _target(value: bytes, place: int) -> int:
    """What the offset at `place` points to."""
    return place + int(_U32.unpack_from(value, place)[0])
