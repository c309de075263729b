"""PNG images of the digits: how they are written, and the decoder that makes rows of them in the reader's process.

Only what the producer here writes is read: 8 bits of grey, no interlacing, lines without a filter. For images from anywhere, have
Pillow where the workers run, and write `numpy.asarray(Image.open(io.BytesIO(record.value)).convert("L"))` in its place.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

if TYPE_CHECKING:
    from dtrain.data.block import RawRecord

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDE = 8
Pixels = npt.NDArray[np.uint8]


def decode(records: Sequence[RawRecord]) -> pa.RecordBatch:
    """A row of each record: its value is an image, its key the digit that it shows. What raises becomes a bad record."""
    images = np.stack([read(record.value or b"") for record in records])
    pixels = pa.array(images.reshape(-1).astype(np.float32) / 255)
    digits = pa.array([int(record.key or b"") for record in records], pa.int64())
    return pa.RecordBatch.from_arrays(
        [pa.FixedSizeListArray.from_arrays(pixels, SIDE * SIDE), digits], names=["pixels", "digit"]
    )


def read(png: bytes) -> Pixels:
    """The pixels of an image, [rows, columns]; ValueError where it is none of ours."""
    if not png.startswith(SIGNATURE):
        raise ValueError("not a PNG image")
    chunks, at = dict[bytes, bytes](), len(SIGNATURE)
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        body = png[at + 8 : at + 8 + length]
        if zlib.crc32(kind + body) != struct.unpack_from(">I", png, at + 8 + length)[0]:
            raise ValueError("the image is damaged")
        chunks[kind] = chunks.get(kind, b"") + body
        at += 12 + length
    width, height, *form = struct.unpack(">2I5B", chunks[b"IHDR"])
    if (width, height, form) != (SIDE, SIDE, [8, 0, 0, 0, 0]):
        raise ValueError(f"not an image of {SIDE} by {SIDE} pixels with 8 bits of grey")
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width)
    if lines[:, 0].any():
        raise ValueError("the image's lines are filtered")
    return lines[:, 1:]


def write(pixels: Pixels) -> bytes:
    """The image of pixels [rows, columns]."""
    height, width = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # a byte 0 before each line: it has no filter
    return SIGNATURE + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(lines.tobytes())),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
