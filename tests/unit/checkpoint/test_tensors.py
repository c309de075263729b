import json
from collections.abc import Mapping

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from dtrain.checkpoint.tensors import Array, decode
from dtrain.checkpoint.tensors import encode as encode_parts
from dtrain.errors import CorruptError, InputError

TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def array(tensor: torch.Tensor) -> Array:
    name = next(name for name, dtype in TORCH.items() if dtype == tensor.dtype)
    return Array(name, tuple(tensor.shape), bytes(tensor.contiguous().flatten().view(torch.uint8).tolist()))


def encode(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    return b"".join(encode_parts(arrays, metadata))


TENSORS = {
    "w": torch.arange(6.0).reshape(2, 3),
    "a.b": torch.tensor(3, dtype=torch.int64),
    "h": torch.arange(3, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
    "flags": torch.tensor([True, False, True]),
}
ARRAYS = {name: array(tensor) for name, tensor in TENSORS.items()}


def test_encode_is_read_by_safetensors() -> None:
    loaded = safetensors.torch.load(encode(ARRAYS, {"k": "v"}))
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[name], TENSORS[name]) and loaded[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_decode_reads_what_safetensors_wrote() -> None:
    arrays, metadata = decode(safetensors.torch.save(TENSORS, {"k": "v"}))
    assert metadata == {"k": "v"}
    assert {n: (a.dtype, a.shape, bytes(a.data)) for n, a in arrays.items()} == {
        n: (a.dtype, a.shape, a.data) for n, a in ARRAYS.items()
    }


def test_encode_of_equal_arrays_gives_equal_bytes_in_any_order() -> None:
    metadata = {str(i): "x" for i in range(8)}
    assert encode(ARRAYS, metadata) == encode(dict(reversed(ARRAYS.items())), dict(reversed(metadata.items())))


def test_encode_aligns_every_tensor_to_its_type() -> None:
    content = encode(ARRAYS, {})
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert int.from_bytes(content[:8], "little") % 8 == 0
    for name, tensor in TENSORS.items():
        assert head[name]["data_offsets"][0] % tensor.element_size() == 0


@given(
    st.dictionaries(
        st.text(min_size=1).filter(lambda n: n != "__metadata__"),
        st.tuples(st.sampled_from(sorted(TORCH)), st.lists(st.integers(0, 4), max_size=3)),
    ),
    st.dictionaries(st.text(), st.text()),
)
def test_decode_returns_what_was_encoded(shapes: dict[str, tuple[str, list[int]]], metadata: dict[str, str]) -> None:
    arrays = {name: array(torch.ones(shape, dtype=TORCH[dtype])) for name, (dtype, shape) in shapes.items()}
    decoded, read = decode(encode(arrays, metadata))
    assert read == metadata
    assert {n: (a.dtype, a.shape, bytes(a.data)) for n, a in decoded.items()} == {
        n: (a.dtype, a.shape, a.data) for n, a in arrays.items()
    }


@pytest.mark.parametrize(
    "bad", [Array("F32", (2,), b"1234"), Array("F99", (1,), b"1234"), Array("F32", (-1,), b""), Array("F32", (-1, -1), b"1234")]
)
def test_encode_of_an_array_that_does_not_fill_its_shape_is_refused(bad: Array) -> None:
    with pytest.raises(InputError, match="'x'"):
        encode({"x": bad}, {})


@given(st.binary(max_size=64))
def test_decode_of_any_bytes_is_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(content)


def header(**tensors: object) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}),
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}) + b"12345",
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}) + b"12345",
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + b"1234",
        header(
            a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, b={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        )
        + b"1234",
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}) + b"1234",
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}) + b"1234",
        header(a={"dtype": "F32", "shape": [1]}) + b"1234",
        header(a=[]) + b"1234",
        header(__metadata__=3),
        header(__metadata__={"a": 3}),
        header(a={"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}) + b"1234",
        header(a={"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}) + b"1234",
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_decode_of_a_header_that_does_not_fit_is_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(content)
