"""Captured values as digests: what a function carries with it besides its text."""

from __future__ import annotations

import dataclasses
import enum
import re
import sys
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any

from penstock.base.hashing import digest_bytes

_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...), range, PurePath)
_MADE = (date, datetime, time, timedelta, timezone, Decimal, Fraction)  # of a few simple values
_ROWS = 1 << 16  # rows of an Arrow table that are hashed at once


def text_of(value: Any, mutable: bool = True) -> str | None:
    """One text for a value made of simple ones, the same in every process; None for others.

    mutable  whether lists, sets, dicts and arrays count: a global one may change as the program
             goes, so its text would be another one for each call
    """
    try:
        return _text(value, mutable)
    except RecursionError:  # a circle
        return None


def _text(value: Any, mutable: bool) -> str | None:
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, _SCALARS):
        return repr(value)
    if isinstance(value, tuple | frozenset):
        return _items(value, mutable, sort=isinstance(value, frozenset))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        inner = _text(fields, mutable) if mutable else None
        return None if inner is None else f"{type(value).__qualname__}{inner}"
    if not mutable:
        return None
    if type(value) in _MADE:
        return f"{type(value).__name__}{_text(value.__reduce_ex__(4)[1], mutable)}"
    if isinstance(value, re.Pattern):
        return f"pattern({value.pattern!r}, {value.flags})"
    if isinstance(value, list | set):
        return _items(value, mutable, sort=isinstance(value, set))
    if isinstance(value, dict):
        return _items(value.items(), mutable, sort=True, kind="dict")
    return _array(value) or _tensor(value) or _arrow(value)


def _items(values: Any, mutable: bool, sort: bool, kind: str = "") -> str | None:
    texts = [_text(item, mutable) for item in values]
    if any(text is None for text in texts):
        return None
    shown = [text for text in texts if text is not None]
    return f"{kind or type(values).__name__}({', '.join(sorted(shown) if sort else shown)})"


def _array(value: Any) -> str | None:
    """A numpy array, known by its interface, so that numpy is not imported to look."""
    if type(value).__module__.partition(".")[0] != "numpy" or not hasattr(value, "tobytes"):
        return None
    if type(value).__name__ == "MaskedArray":
        inner = [_array(value.data), _array(sys.modules["numpy"].ma.getmaskarray(value))]
        return None if None in inner else f"masked({inner}, {value.fill_value!r})"
    dtype = value.dtype.str if value.dtype.names is None else repr(value.dtype.descr)
    if getattr(value.dtype, "hasobject", True):  # its bytes are addresses
        held = _text(value.tolist(), True)
        return None if held is None else f"array({dtype}, {value.shape}, {held})"
    return f"array({dtype}, {value.shape}, {digest_bytes(value.tobytes())})"


def _tensor(value: Any) -> str | None:
    """A tensor of torch, by dtype, shape and bytes; wherever it is, the CPU's copy is read."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "Tensor") or not isinstance(value, torch.Tensor):
        return None
    if value.is_meta:
        return f"tensor(meta, {value.dtype}, {tuple(value.shape)})"
    plain = value.detach().cpu()
    plain = plain.dequantize() if plain.is_quantized else plain
    plain = plain.to_dense() if plain.layout is not torch.strided else plain
    plain = plain.resolve_conj().resolve_neg().contiguous().flatten()
    data = plain.view(torch.uint8).numpy() if plain.numel() else b""
    what = f"{value.layout}, {value.dtype}, {tuple(value.shape)}, {value.requires_grad}"
    return f"tensor({type(value).__qualname__}, {what}, {digest_bytes(data)})"


def _arrow(value: Any) -> str | None:
    """A table or an array of Arrow, however its rows are cut into chunks.

    Only pyarrow's, whose module is there when its objects are, and only what holds its rows: a
    reader can be read once. Those of polars and pandas tell their columns as other objects do.
    """
    kind = type(value)
    stream = hasattr(kind, "__arrow_c_stream__") and not hasattr(kind, "__arrow_c_array__")
    if kind.__module__.partition(".")[0] != "pyarrow" or not hasattr(kind, "__len__"):
        return None
    if not (stream or hasattr(kind, "__arrow_c_array__")):
        return None
    pa: Any = sys.modules["pyarrow"]
    rows = pa.chunked_array(value) if stream else pa.chunked_array([pa.array(value)])
    digests = [_batch(pa, rows.slice(at, _ROWS)) for at in range(0, len(rows), _ROWS)]
    notes = getattr(getattr(value, "schema", None), "metadata", None)
    return f"{kind.__qualname__}({rows.type}, {len(rows)}, {notes}, {digests})"


def _batch(pa: Any, rows: Any) -> str:
    sink = pa.BufferOutputStream()
    whole = pa.concat_arrays(rows.chunks)
    batch = pa.RecordBatch.from_arrays([whole], ["rows"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return digest_bytes(memoryview(sink.getvalue()))


def classes_in(value: Any) -> Iterator[type]:
    """Enums and dataclasses among the items of a container; their source counts, too."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        for item in value:
            if isinstance(item, enum.Enum) or dataclasses.is_dataclass(type(item)):
                yield type(item)
            yield from classes_in(item)
    elif dataclasses.is_dataclass(type(value)):
        for field in dataclasses.fields(value):
            yield from classes_in((getattr(value, field.name),))
