"""Tensors of the Open Inference Protocol to NumPy arrays and back.

Raw contents are little-endian, row-major bytes; typed contents are repeated fields of a few
types, several datatypes to a field. FP16 has no typed field: it travels raw only. Text (BYTES) is
no input or output of any package, so it is refused by name.

R = rows of the request, the first axis of every tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.serving.protocol import open_inference_pb2 as pb

Array = np.ndarray[Any, Any]

# datatype -> (NumPy's name, field of InferTensorContents)
_TYPES: dict[str, tuple[str, str | None]] = {
    "BOOL": ("bool", "bool_contents"),
    "INT8": ("int8", "int_contents"),
    "INT16": ("int16", "int_contents"),
    "INT32": ("int32", "int_contents"),
    "INT64": ("int64", "int64_contents"),
    "UINT8": ("uint8", "uint_contents"),
    "UINT16": ("uint16", "uint_contents"),
    "UINT32": ("uint32", "uint_contents"),
    "UINT64": ("uint64", "uint64_contents"),
    "FP16": ("float16", None),
    "FP32": ("float32", "fp32_contents"),
    "FP64": ("float64", "fp64_contents"),
}
_NAMES = {dtype: datatype for datatype, (dtype, _) in _TYPES.items()}
_MOST_ELEMENTS = 1 << 40  # a shape beyond it is a mistake, not a tensor


def datatype(dtype: str) -> str:
    """The protocol's word for NumPy's: "float32" -> "FP32". Raises BadInput for others."""
    if dtype not in _NAMES:
        raise BadInput(
            f"a model with tensors of type {dtype} cannot be served",
            f"Publish it with one of: {', '.join(_NAMES)}.",
            dtype=dtype,
        )
    return _NAMES[dtype]


def decode(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, wanted: str) -> Array:
    """One input as an array that must not be written to.

    raw     its raw contents, or None when the request carries typed contents
    wanted  the datatype that the model takes: another one is refused before anything is read
    """
    if tensor.datatype != wanted:
        raise _wrong_type(tensor, wanted)
    shape = _shape(tensor)
    dtype, field = _TYPES[wanted]
    if raw is not None:
        return _from_raw(tensor.name, raw, np.dtype(dtype), shape)
    return _from_typed(tensor, np.dtype(dtype), field, shape)


def _wrong_type(tensor: pb.ModelInferRequest.InferInputTensor, wanted: str) -> BadInput:
    given = tensor.datatype
    if given == "BYTES":
        what, fix = "text (BYTES), which this model does not take", f"Send {wanted}."
    elif given not in _TYPES:
        what = f'datatype "{given}", which is none of the protocol or not supported'
        fix = f"Send {wanted}; known are: {', '.join(_TYPES)}."
    else:
        what, fix = f"{given}, the model takes {wanted}", f"Convert it to {wanted}."
    return BadInput(
        f'input "{tensor.name}" was given {what}', fix, input=tensor.name, wanted=wanted, got=given
    )


def _shape(tensor: pb.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    shape = tuple(tensor.shape)
    # A size of 0 must not hide a giant one: NumPy refuses such a shape too.
    if min(shape, default=0) < 0 or math.prod(max(size, 1) for size in shape) > _MOST_ELEMENTS:
        raise BadInput(
            f'input "{tensor.name}" has the impossible shape {list(shape)}',
            "Sizes are whole numbers from 0; the shape is that of the data sent.",
            input=tensor.name,
            got=list(shape),
        )
    return shape


def _from_raw(name: str, raw: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    wanted = math.prod(shape) * dtype.itemsize
    if len(raw) != wanted:
        raise BadInput(
            f'input "{name}" has {len(raw)} bytes, its shape {list(shape)} takes {wanted}',
            "Send row-major bytes of exactly the shape and datatype that are named.",
            input=name,
            wanted=wanted,
            got=len(raw),
        )
    if dtype == np.bool_ and raw.strip(b"\x00\x01"):
        raise BadInput(
            f'input "{name}" is BOOL but holds bytes other than 0 and 1', "Send 0 or 1.", input=name
        )
    return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def _from_typed(
    tensor: pb.ModelInferRequest.InferInputTensor,
    dtype: np.dtype[Any],
    field: str | None,
    shape: tuple[int, ...],
) -> Array:
    name = tensor.name
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if field is None:
        raise BadInput(
            f'input "{name}" is FP16, which has no typed contents',
            "Send it in raw_input_contents.",
            input=name,
        )
    if foreign := [other for other in filled if other != field]:
        raise BadInput(
            f'input "{name}" is {tensor.datatype} but fills {foreign[0]}',
            f"{tensor.datatype} goes into {field}.",
            input=name,
            wanted=field,
            got=filled,
        )
    values: Sequence[Any] = getattr(tensor.contents, field)
    if len(values) != math.prod(shape):
        raise BadInput(
            f'input "{name}" has {len(values)} elements, its shape {list(shape)} takes '
            f"{math.prod(shape)}",
            "Send as many elements as the shape has, in row-major order.",
            input=name,
            wanted=math.prod(shape),
            got=len(values),
        )
    try:
        return np.array(values, dtype).reshape(shape)
    except OverflowError:
        raise BadInput(
            f'input "{name}" has elements that do not fit {tensor.datatype}',
            f"Keep them between {np.iinfo(dtype).min} and {np.iinfo(dtype).max}.",
            input=name,
        ) from None


def encode(response: pb.ModelInferResponse, name: str, array: Array, raw: bool) -> None:
    """Append one output to a response, as raw bytes or (where it has a field) typed."""
    kind = datatype(array.dtype.name)
    tensor = response.outputs.add(name=name, datatype=kind, shape=array.shape)
    field = _TYPES[kind][1]
    if raw or field is None:
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        response.raw_output_contents.append(little.tobytes())
    else:
        values: Iterable[Any] = array.ravel().tolist()
        getattr(tensor.contents, field).extend(values)


def must_be_raw(dtypes: Iterable[str]) -> bool:
    """Whether one of these NumPy types has no typed field; a response is all raw or all typed."""
    return any(_TYPES[datatype(dtype)][1] is None for dtype in dtypes)
