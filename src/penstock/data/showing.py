"""Rows for people and for JSON: scalars as they are, large values by what they are.

`plain` is what the command line and the HTTP API show of a value:

    tensor, list   nested lists of at most 16 numbers; larger ones {"dtype", "shape", "min", "max",
                   "mean"}
    text           at most 2,000 characters, then "…"
    bytes          {"bytes": how many, "format": "jpeg" | "wav" | …}
    time           ISO 8601
    reference      {"uri", "start", "length"}
    number         itself; NaN and infinities as text
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.base.units import show_bytes
from penstock.data.columns import Column
from penstock.data.decoding import IMAGES
from penstock.data.references import Reference

if TYPE_CHECKING:
    from penstock.data.dataset import Dataset

_ELEMENTS = 16  # of an array that is shown as it is
_TEXT = 2000


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it, large values summarised."""
    return {name: plain(value) for name, value in row.items()}


def plain(value: Any) -> Any:
    """A value as JSON has it, see above."""
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, bytes):
        return {"bytes": len(value), **({"format": name} if (name := format_of(value)) else {})}
    if isinstance(value, Reference):
        return {"uri": value.uri, "start": value.start, "length": value.length}
    if isinstance(value, str):
        return value if len(value) <= _TEXT else value[: _TEXT - 1] + "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _array(value: np.ndarray[Any, Any]) -> Any:
    if value.size <= _ELEMENTS:
        return _nested(value.tolist())
    found: dict[str, Any] = {"dtype": value.dtype.name, "shape": list(value.shape)}
    finite = value[np.isfinite(value)] if value.dtype.kind == "f" else value
    if finite.size:
        low, high = finite.min().item(), finite.max().item()
        mean = float(finite.mean(dtype=np.float64))
        found |= {"min": plain(low), "max": plain(high), "mean": plain(mean)}
    return found


def _nested(value: Any) -> Any:
    return [_nested(each) for each in value] if isinstance(value, list) else plain(value)


def format_of(data: bytes) -> str:
    """The kind of file that bytes begin as; "" where they do not tell."""
    for name, marks in IMAGES.items():
        if any(data[offset : offset + len(mark)] == mark for offset, mark in marks):
            return name
    return "wav" if data[:4] == b"RIFF" and data[8:12] == b"WAVE" else ""


def value_text(value: Any, limit: int = 60) -> str:
    """A value, plain or not, on one line.

    >>> value_text(np.zeros((8, 8), "float32")), value_text(b"abc"), value_text(None)
    ('float32[8, 8] 0 … 0', '3 bytes', '-')
    """
    found = plain(value) if not isinstance(value, dict | list) else value
    if found is None:
        return "-"
    if isinstance(found, dict):
        return _dict_text(found)
    if isinstance(found, float):
        return f"{found:.6g}"
    text = " ".join(str(found).split()) if isinstance(found, str) else str(found)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _dict_text(found: dict[str, Any]) -> str:
    if "bytes" in found:
        size = found["bytes"]
        told = f"{size} bytes" if size < 1000 else show_bytes(size)
        return f"{found['format']} {told}" if "format" in found else told
    if "uri" in found:
        end = "" if found["length"] is None else found["start"] + found["length"]
        part = f" [{found['start']}:{end}]" if found["start"] or end else ""
        return f"{found['uri']}{part}"
    if "dtype" not in found:
        return str(found)
    ends = f" {value_text(found['min'])} … {value_text(found['max'])}" if "min" in found else ""
    return f"{found['dtype']}{found['shape']}{ends}"


def row_text(row: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """A row on one line: {id: 3, image: float32[8, 8] 0 … 1}."""
    names = [each.name for each in columns if each.name in row]
    return "{" + ", ".join(f"{name}: {value_text(row[name])}" for name in names) + "}"


def column_text(column: Column) -> str:
    """A column's type and what it means: "float32[8, 8] image"."""
    kept = column.kind if column.kind in ("text", "bytes", "time", "reference") else str(column)
    return f"{kept} ({column.meaning})" if column.meaning not in ("", column.kind) else kept


def dataset_text(data: Dataset) -> str:
    """What `repr` says of a dataset: its name, its rows, a line per column."""
    part = "" if data.whole else f" (rows {data.start} to {data.stop})"
    lines = [f"<Dataset {data.reference}: {len(data):,} rows{part}"]
    width = max((len(each.name) for each in data.columns), default=0)
    lines += [f"  {each.name:<{width}}  {column_text(each)}" for each in data.columns]
    return "\n".join(lines) + ">"
