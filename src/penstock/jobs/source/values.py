"""Captured values as digests: what a function carries with it besides its text."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import PurePath
from typing import Any

from penstock.base.hashing import digest_bytes

_SCALARS = (bool, int, float, complex, str, bytes, type(None), type(...), range, PurePath)


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
    if isinstance(value, list | set):
        return _items(value, mutable, sort=isinstance(value, set))
    if isinstance(value, dict):
        return _items(value.items(), mutable, sort=True, kind="dict")
    return _array(value)


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
    if getattr(value.dtype, "hasobject", True):
        return None
    return f"array({value.dtype.str}, {value.shape}, {digest_bytes(value.tobytes())})"
