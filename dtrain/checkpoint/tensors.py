"""Tensors as safetensors bytes, without torch: equal tensors give equal bytes.

The library's own writer puts metadata in random order, so that equal states would have different digests, and its reader
copies; the format is a length (8 bytes, little-endian), a JSON header, and the data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dtrain.errors import CorruptError, InputError
from dtrain.steplog.entries import canonical

_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""safetensors' names of types → bytes an element."""


@dataclass(frozen=True, slots=True)
class Array:
    """A dense tensor, row-major, little-endian.

    Args:
        dtype: safetensors' name, as "F32" or "BF16".
        shape: its dimensions; () for a scalar.
        data: its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview | bytes


def encode(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """A safetensors file of `arrays`, wide types first so that each is aligned, and by name: its bytes in parts, none copied.

    Raises:
        InputError: a type is unknown, or an array's bytes do not fill its shape.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts: list[bytes | memoryview] = []
    end = 0
    for name in sorted(arrays, key=lambda n: (-_SIZES.get(arrays[n].dtype, 0), n)):
        array, data = arrays[name], memoryview(arrays[name].data).cast("B")
        if _num_bytes(array.dtype, array.shape) != data.nbytes:
            raise InputError(f"tensor {name!r}: {data.nbytes} bytes for {array.dtype} {list(array.shape)}")
        header[name] = {"dtype": array.dtype, "shape": list(array.shape), "data_offsets": [end, end + data.nbytes]}
        end += data.nbytes
        parts.append(data)
    head = canonical(header)
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little") + head, *parts]


def decode(content: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a safetensors file. The arrays are views into `content`: nothing is copied.

    Raises:
        CorruptError: it is not such a file; checked before any data is looked at.
    """
    try:
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start] if start <= len(content) else b"")
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(text, str) for text in metadata.values()):
            raise CorruptError("metadata of a safetensors file is not text")
        body, end, arrays = memoryview(content)[start:], 0, {}
        for name, value in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            first, last = value["data_offsets"]
            array = Array(value["dtype"], tuple(value["shape"]), body[first:last])
            if first != end or not first <= last <= len(body) or _num_bytes(array.dtype, array.shape) != last - first:
                raise CorruptError(f"tensor {name!r} does not fill its place in the file")
            arrays[name], end = array, last
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptError(f"not a safetensors file: {error}") from error
    if end != len(body):
        raise CorruptError(f"{len(body) - end} bytes too many in a safetensors file")
    return arrays, metadata


def _num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of such a tensor; -1 for a type or shape that does not exist."""
    return math.prod(shape) * _SIZES[dtype] if dtype in _SIZES and all(type(n) is int and n >= 0 for n in shape) else -1
