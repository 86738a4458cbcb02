"""Leaves that are bytes: torch tensors, NumPy arrays and long byte strings.

Each is described by an `Entry` and seen as flat uint8, so that every dtype travels bit by bit.
torch and NumPy are looked up, never imported, on the way out: what is not loaded cannot be in
a state.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from penstock.base.errors import CannotTravel, Damaged, MissingExtra

if TYPE_CHECKING:
    import numpy as np
    import torch

Kind = Literal["tensor", "array", "bytes"]

# torch dtypes by their stored names; quantised and sub-byte ones have no stable bytes of their own.
_INTEGERS = {"uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"}
_FLOATS = {"bfloat16", "float16", "float32", "float64", "complex32", "complex64", "complex128"}
_FLOAT8 = {"e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"}
TORCH_DTYPES = frozenset({"bool"} | _INTEGERS | _FLOATS | {f"float8_{form}" for form in _FLOAT8})
NUMPY_KINDS = frozenset("biufcmMSU")  # no objects, no structured dtypes


class Entry(NamedTuple):
    """One leaf whose bytes lie in the parts.

    name    path in the tree, for people: "shared.model.conv1.weight"
    kind    what it is once loaded
    dtype   "float32" for tensors, "<f4" (NumPy's `dtype.str`) for arrays, "bytes"
    shape   of the array; bytes are stored in row-major order, little-endian as in memory
    nbytes  without padding
    stride  of a tensor that was dense but not row-major (channels_last), to restore its layout
    device  type of the device the tensor was on; loading always gives the CPU
    mesh, placements  of a distributed tensor (DTensor), for people: shape and stored bytes are of
            the whole, and a reader needs neither
    """

    name: str
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    stride: tuple[int, ...] | None = None
    device: str = "cpu"
    mesh: tuple[int, ...] | None = None
    placements: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` is the way back. Defaults are left out."""
        data: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "nbytes": self.nbytes,
        }
        if self.stride is not None:
            data["stride"] = list(self.stride)
        if self.device != "cpu":
            data["device"] = self.device
        if self.mesh is not None:
            data["mesh"], data["placements"] = list(self.mesh), list(self.placements or ())
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Entry:
        stride = data.get("stride")
        return cls(
            name=data["name"],
            kind=data["kind"],
            dtype=data["dtype"],
            shape=tuple(data["shape"]),
            nbytes=data["nbytes"],
            stride=None if stride is None else tuple(stride),
            device=data.get("device", "cpu"),
            mesh=tuple(data["mesh"]) if "mesh" in data else None,
            placements=tuple(data["placements"]) if "placements" in data else None,
        )


def cannot_travel(path: str, what: str) -> CannotTravel:
    """The one refusal of this room; it names the place in the state."""
    return CannotTravel(
        f"{path} cannot be put into a checkpoint: {what}",
        "Keep tensors, arrays, numbers, text, bytes, None, lists, tuples and dicts in the state; "
        "give other objects a state_dict() that returns such.",
        path=path,
    )


_plain: dict[type, bool] = {}  # what was found of types
_names: dict[Any, str] = {}  # dtype -> its name


def is_plain_tensor(kind: type) -> bool:
    """Whether this is a class of tensors whose bytes are all that there is to them."""
    known = _plain.get(kind)
    if known is None:
        torch = sys.modules.get("torch")
        if torch is None:
            return False
        known = kind in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
        _plain[kind] = known
    return known


def _name_of(dtype: torch.dtype) -> str:
    if (name := _names.get(dtype)) is None:
        name = _names[dtype] = str(dtype).removeprefix("torch.")
    return name


def tensor_entry(value: torch.Tensor, name: str) -> Entry:
    """Describe a tensor. Raises CannotTravel for layouts, dtypes and classes that have no bytes."""
    import torch

    if not is_plain_tensor(type(value)):
        raise cannot_travel(name, f"it is a {_class(value)}, a kind of tensor not supported yet")
    dtype = _name_of(value.dtype)
    if value.layout is not torch.strided or dtype not in TORCH_DTYPES or value.is_meta:
        where = "meta" if value.is_meta else str(value.layout).removeprefix("torch.")
        raise cannot_travel(name, f"a {dtype} tensor that is {where} has no plain bytes")
    shape, stride = tuple(value.shape), None
    if not value.is_contiguous() and _is_dense(shape, value.stride()):
        stride = tuple(value.stride())
    return Entry(name, "tensor", dtype, shape, value.nbytes, stride, value.device.type)


def array_entry(value: np.ndarray[Any, Any], name: str) -> Entry:
    """Describe a NumPy array. Raises CannotTravel for object and structured dtypes."""
    if value.dtype.kind not in NUMPY_KINDS:
        raise cannot_travel(name, f"an array of dtype {value.dtype} has no plain bytes")
    return Entry(name, "array", value.dtype.str, tuple(value.shape), value.nbytes)


def identity(value: Any) -> tuple[Any, ...] | None:
    """What two leaves share when they are one and the same view of memory; None when empty."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.numel() == 0:
            return None
        flags = (value.is_conj(), value.is_neg())
        where = (value.data_ptr(), value.device, value.shape, value.stride())
        return ("tensor", value.dtype, *where, *flags)
    if isinstance(value, bytes) or value.size == 0:
        return None
    return (
        "array",
        value.__array_interface__["data"][0],
        value.dtype.str,
        value.shape,
        value.strides,
    )


def torch_bytes(value: torch.Tensor) -> torch.Tensor:
    """uint8 [nbytes] on the tensor's device, row-major; a view where the tensor is contiguous.

    value  not empty
    """
    import torch

    plain = value.detach().resolve_conj().resolve_neg().contiguous()
    # reshape(-1) would keep the odd stride that a dimension of length 1 may have
    return plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)


def numpy_bytes(value: np.ndarray[Any, Any] | bytes) -> np.ndarray[Any, Any]:
    """uint8 [nbytes], row-major; a view where the array is contiguous.

    value  not empty
    """
    import numpy as np

    if isinstance(value, bytes):
        return np.frombuffer(value, dtype=np.uint8)
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


def allocate(entry: Entry) -> tuple[memoryview, Callable[[], Any]]:
    """Room for an entry's bytes, writable, and a function that gives the leaf once it is filled.

    Raises Damaged when dtype, shape and size do not agree, MissingExtra without torch.
    """
    match entry.kind:
        case "tensor":
            return _allocate_tensor(entry)
        case "array":
            return _allocate_array(entry)
        case "bytes":
            raw = bytearray(entry.nbytes)
            return memoryview(raw), lambda: bytes(raw)
    raise disagrees(entry)


def _allocate_tensor(entry: Entry) -> tuple[memoryview, Callable[[], Any]]:
    if entry.dtype not in TORCH_DTYPES:
        raise disagrees(entry)
    torch = _torch()
    dtype = getattr(torch, entry.dtype)
    _check_size(entry, dtype.itemsize)
    flat = torch.empty(entry.nbytes, dtype=torch.uint8)

    def leaf() -> Any:
        plain = flat.view(dtype).reshape(entry.shape)
        if entry.stride is None:
            return plain
        if len(entry.stride) != len(entry.shape) or not _is_dense(entry.shape, entry.stride):
            raise disagrees(entry)
        return torch.empty_strided(entry.shape, entry.stride, dtype=dtype).copy_(plain)

    return flat.numpy().data, leaf


def _allocate_array(entry: Entry) -> tuple[memoryview, Callable[[], Any]]:
    import numpy as np

    try:
        dtype = np.dtype(entry.dtype)
    except TypeError:
        raise disagrees(entry) from None
    if dtype.kind not in NUMPY_KINDS:
        raise disagrees(entry)
    _check_size(entry, dtype.itemsize)
    array = np.empty(entry.shape, dtype)
    flat = array.reshape(-1).view(np.uint8) if entry.nbytes else np.empty(0, np.uint8)
    return flat.data, lambda: array


def disagrees(entry: Entry) -> Damaged:
    """The manifest contradicts itself; only another writer than Penstock can have made it."""
    return Damaged(
        f"{entry.name} is described as {entry.dtype} {list(entry.shape)} in {entry.nbytes} bytes, "
        "which cannot be",
        "Use another checkpoint; this one was not written by Penstock, or was altered.",
        tensor=entry.name,
    )


def _check_size(entry: Entry, itemsize: int) -> None:
    whole = all(isinstance(n, int) and n >= 0 for n in entry.shape)
    if not whole or math.prod(entry.shape) * itemsize != entry.nbytes:
        raise disagrees(entry)


def _is_dense(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether the strides visit every element of one block of memory exactly once."""
    expected = 1
    for step, count in sorted(zip(stride, shape, strict=True)):
        if count == 1:
            continue
        if step != expected:
            return False
        expected *= count
    return True


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtra(
            "this checkpoint holds torch tensors and torch is not installed",
            "Install it with: pip install 'penstock[torch]'",
            extra="torch",
        ) from None
    return torch


def _class(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
