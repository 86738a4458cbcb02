"""State trees to JSON and back, without pickle.

A tree becomes its structure, which is JSON, and a list of leaves whose bytes travel apart.
JSON has too few types, so a one-key object is a tag; plain JSON stands for itself:

null, true, 3, 0.5, "text"     None, bool, int (up to 64 bits), finite float, str
[…]                            list
{"dict": [[key, value], …]}    dict in its order, keys of any hashable leaf
{"tuple": […]}  {"size": […]}  tuple, torch.Size
{"int": "-0x…"}                int beyond 64 bits
{"float": "7ff0000000000000"}  inf and NaN, by their IEEE bits
{"str": "…"}                   text that is not Unicode (lone surrogates), hex of "surrogatepass"
{"bytes": "…"}                 short bytes, hex
{"scalar": ["<f4", "…"]}       NumPy scalar: dtype, hex
{"device": "cuda:0"}  {"dtype": "float32"}   torch.device, torch.dtype
{"entry": 7}                   tensor, array or long bytes: number in the list of entries

JSON's shortest decimal gives every finite double back exactly, -0.0 included.
"""

from __future__ import annotations

import math
import struct
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.base.errors import Damaged
from penstock.checkpoints import sharding
from penstock.checkpoints.arrays import (
    NUMPY_KINDS,
    TORCH_DTYPES,
    Entry,
    array_entry,
    cannot_travel,
    identity,
    is_plain_tensor,
    tensor_entry,
)

DEEPEST = 100  # nesting; a tree that contains itself is found by it
_INLINE = 256  # bytes; longer byte strings become entries
_MANY = 16  # items, from which looking at all of them at once pays
_WIDE = 1 << 63


@dataclass(slots=True)
class Encoded:
    """structure  JSON-able
    entries    descriptions of the leaves that travel as bytes
    sources    those leaves themselves, in the same order: tensors, arrays, bytes; of a distributed
               tensor this rank's local one
    shardings  entry number -> how it is distributed; its entry describes the whole
    """

    structure: Any = None
    entries: list[Entry] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    shardings: dict[int, sharding.Sharding] = field(default_factory=dict)
    known: dict[tuple[Any, ...], int] = field(default_factory=dict)


def encode(tree: Any, name: str) -> Encoded:
    """Take a tree apart. `name` begins every path.

    Two leaves that are the same view of the same memory (tied weights) become one entry.
    Raises CannotTravel, which names the path of the first leaf that has no stored form.

    >>> encode({"lr": 0.5, 1: (None, True)}, "own").structure
    {'dict': [['lr', 0.5], [1, {'tuple': [None, True]}]]}
    """
    out = Encoded()
    out.structure = _encode(tree, name, out, 0)
    return out


def _encode(value: Any, path: str, out: Encoded, depth: int) -> Any:
    if depth > DEEPEST:
        raise cannot_travel(path, f"it is nested deeper than {DEEPEST}, or contains itself")
    kind = type(value)
    if is_plain_tensor(kind):  # most leaves of most states
        return _add(out, value, tensor_entry(value, path))
    if kind is dict or kind is OrderedDict:
        below = depth + 1
        return {
            "dict": [
                [encode_key(key, path), _encode(item, f"{path}.{_show(key)}", out, below)]
                for key, item in value.items()
            ]
        }
    if kind is list or kind is tuple:
        if len(value) > _MANY and _are_small_ints(value):  # a generator's state, say
            items = list(value)
        else:
            items = [_encode(v, f"{path}.{i}", out, depth + 1) for i, v in enumerate(value)]
        return items if kind is list else {"tuple": items}
    if kind is bytes and len(value) > _INLINE:
        return _add(out, value, Entry(path, "bytes", "bytes", (len(value),), len(value)))
    found = _encode_plain(value)
    return _encode_array(value, path, out) if found is _UNKNOWN else found


def _are_small_ints(values: Sequence[Any]) -> bool:
    """Whether they stand for themselves in JSON; without a call for each."""
    return set(map(type, values)) == {int} and min(values) >= -_WIDE and max(values) < _WIDE


_UNKNOWN = object()


def _encode_plain(value: Any) -> Any:
    """Leaves of Python itself; _UNKNOWN for all else."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -_WIDE <= value < _WIDE else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            return {"str": value.encode(errors="surrogatepass").hex()}
        return value
    return {"bytes": value.hex()} if kind is bytes else _UNKNOWN


def encode_key(key: Any, path: str = "shared") -> Any:
    """The key of a dict, which has no entries. Raises CannotTravel."""
    if type(key) is tuple:
        return {"tuple": [encode_key(item, path) for item in key]}
    found = _encode_plain(key)
    if found is _UNKNOWN:
        raise cannot_travel(f"{path}.{_show(key)}", f"its key is a {_class(key)}")
    return found


def _encode_array(value: Any, path: str, out: Encoded) -> Any:
    """Leaves of torch and NumPy."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None:
        if sharding.is_distributed(value):
            return _add_distributed(out, value, path)
        if isinstance(value, torch.Tensor):
            return _add(out, value, tensor_entry(value, path))
        if isinstance(value, torch.Size):
            return {"size": list(value)}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, torch.dtype) and (name := str(value)[6:]) in TORCH_DTYPES:
            return {"dtype": name}
    if numpy is not None:
        if type(value) is numpy.ndarray:
            return _add(out, value, array_entry(value, path))
        if isinstance(value, numpy.generic) and value.dtype.kind in NUMPY_KINDS:
            return {"scalar": [value.dtype.str, value.tobytes().hex()]}
    if isinstance(value, tuple):
        raise cannot_travel(path, f"it is a {_class(value)}; only plain tuples come back as such")
    raise cannot_travel(path, f"it is a {_class(value)}")


def _add(out: Encoded, value: Any, entry: Entry) -> dict[str, int]:
    same = identity(value)
    if same is not None and same in out.known:
        return {"entry": out.known[same]}
    number = len(out.entries)
    out.entries.append(entry)
    out.sources.append(value)
    if same is not None:
        out.known[same] = number
    return {"entry": number}


def _add_distributed(out: Encoded, value: Any, path: str) -> dict[str, int]:
    same = sharding.identity(value)
    if same in out.known:
        return {"entry": out.known[same]}
    number = out.known[same] = len(out.entries)
    out.shardings[number] = sharding.sharding_of(value, path)
    out.entries.append(sharding.entry_of(value, path))
    out.sources.append(value.to_local().detach())
    return {"entry": number}


def shardings_in(tree: Any, name: str) -> dict[str, sharding.Sharding]:
    """How the distributed tensors of a tree lie over the ranks, by the names of their entries.

    Raises CannotTravel.
    """
    found: dict[str, sharding.Sharding] = {}
    if sharding.is_distributed(tree):
        found[name] = sharding.sharding_of(tree, name)
    elif isinstance(tree, dict):
        for key, item in tree.items():
            found |= shardings_in(item, f"{name}.{_show(key)}")
    elif isinstance(tree, list | tuple):
        for number, item in enumerate(tree):
            found |= shardings_in(item, f"{name}.{number}")
    return found


def decode(structure: Any, leaves: Sequence[Any]) -> Any:
    """Build the tree again. `leaves[n]` is the leaf of entry n. Raises Damaged on an unknown tag.

    >>> decode({"dict": [["lr", 0.5], [1, {"tuple": [None, True]}]]}, [])
    {'lr': 0.5, 1: (None, True)}
    """
    try:
        return _decode(structure, leaves)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise Damaged(
            f"the structure of a stored state does not parse: {error}",
            "Use another checkpoint; this one was not written by Penstock, or was altered.",
        ) from None


def _decode(node: Any, leaves: Sequence[Any]) -> Any:
    if isinstance(node, list):
        return [_decode(item, leaves) for item in node]
    if not isinstance(node, dict):
        return node
    ((tag, body),) = node.items()
    match tag:
        case "dict":
            return {_decode(key, leaves): _decode(value, leaves) for key, value in body}
        case "tuple":
            return tuple(_decode(item, leaves) for item in body)
        case "entry":
            return leaves[body]
        case "int":
            return int(body, 16)
        case "float":
            return struct.unpack(">d", bytes.fromhex(body))[0]
        case "str":
            return bytes.fromhex(body).decode(errors="surrogatepass")
        case "bytes":
            return bytes.fromhex(body)
        case "scalar":
            return _decode_scalar(*body)
        case "size" | "device" | "dtype":
            return _decode_torch(tag, body)
    raise ValueError(f'unknown tag "{tag}"')


def _decode_scalar(dtype: str, raw: str) -> Any:
    import numpy as np

    kind = np.dtype(dtype)
    if kind.kind not in NUMPY_KINDS:
        raise ValueError(f"a scalar of dtype {dtype}")
    array = np.zeros((), kind)
    if kind.itemsize:
        array.reshape(-1).view(np.uint8)[:] = np.frombuffer(bytes.fromhex(raw), np.uint8)
    return array[()]


def _decode_torch(tag: str, body: Any) -> Any:
    import torch

    if tag == "size":
        return torch.Size(body)
    if tag == "device":
        return torch.device(body)
    if body not in TORCH_DTYPES:
        raise ValueError(f'unknown dtype "{body}"')
    return getattr(torch, body)


def _show(key: Any) -> str:
    return key if type(key) is str else repr(key)


def _class(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
