"""Tensors on the wire: every type there and back, and no bytes that do harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.serving.protocol import open_inference_pb2 as pb
from penstock.serving.tensors import datatype, decode, encode, must_be_raw

DTYPES = tuple(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()  # noqa: SIM905  a list of words is a column of quotes
)
TYPED = [dtype for dtype in DTYPES if dtype != "float16"]


def array(dtype: str, rows: int, seed: int) -> np.ndarray:
    data = np.random.default_rng(seed).bytes(rows * 3 * np.dtype(dtype).itemsize)
    if dtype == "bool":
        return (np.frombuffer(data, np.uint8) > 127).reshape(rows, 3)
    return np.frombuffer(data, dtype).reshape(rows, 3)


def back(response: pb.ModelInferResponse, dtype: str) -> np.ndarray:
    tensor = pb.ModelInferRequest.InferInputTensor.FromString(
        response.outputs[0].SerializeToString()
    )
    raw = response.raw_output_contents
    return decode(tensor, raw[0] if raw else None, datatype(dtype))


@given(st.sampled_from(DTYPES), st.integers(0, 5), st.integers(0, 2**32))
def test_raw_contents_come_back_bit_for_bit(dtype: str, rows: int, seed: int) -> None:
    sent, response = array(dtype, rows, seed), pb.ModelInferResponse()
    encode(response, "x", sent, raw=True)
    got = back(response, dtype)
    assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


@given(st.sampled_from(TYPED), st.integers(0, 5), st.integers(0, 2**32))
def test_typed_contents_come_back_with_equal_values(dtype: str, rows: int, seed: int) -> None:
    sent, response = array(dtype, rows, seed), pb.ModelInferResponse()
    encode(response, "x", sent, raw=False)
    np.testing.assert_array_equal(back(response, dtype), sent)


def test_half_precision_is_sent_raw_even_when_typed_is_asked_for() -> None:
    assert must_be_raw(["float32", "float16"])
    response = pb.ModelInferResponse()
    encode(response, "x", np.zeros((1, 2), np.float16), raw=False)
    assert len(response.raw_output_contents) == 1


@settings(max_examples=300)
@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(-3, 2**63 - 1) | st.integers(0, 4), max_size=4),
    st.binary(max_size=64) | st.none(),
)
def test_any_bytes_give_an_array_of_the_named_shape_or_one_clear_error(
    dtype: str, shape: list[int], raw: bytes | None
) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype(dtype), shape=shape)
    try:
        assert decode(tensor, raw, datatype(dtype)).shape == tuple(shape)
    except BadInput as error:
        assert error.fix


def test_elements_beyond_a_small_integer_are_refused() -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="UINT8", shape=[1])
    tensor.contents.uint_contents.append(256)
    with pytest.raises(BadInput, match="do not fit UINT8"):
        decode(tensor, None, "UINT8")


def test_a_byte_that_is_no_truth_value_is_refused() -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="BOOL", shape=[3])
    with pytest.raises(BadInput, match="other than 0 and 1"):
        decode(tensor, b"\x00\x02\x01", "BOOL")


@pytest.mark.parametrize("dtype", ["complex64", "str", "bfloat16"])
def test_types_that_the_protocol_cannot_say_are_refused_when_loading(dtype: str) -> None:
    with pytest.raises(BadInput, match=dtype):
        datatype(dtype)
