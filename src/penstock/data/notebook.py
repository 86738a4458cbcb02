"""A dataset in a notebook: a table of its first rows, pictures as small thumbnails.

Everything that comes from data is escaped; pictures are inlined, so that the page needs nothing.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.base.errors import PenstockError
from penstock.data.columns import Array, Column
from penstock.data.references import Reference
from penstock.data.showing import column_text, value_text

if TYPE_CHECKING:
    from penstock.data.dataset import Dataset

_SIDE = 64  # pixels of a thumbnail's longer side
_INLINE = 1 << 15  # bytes of an encoded image that is inlined as it is
_LARGEST = 32 << 20  # bytes of one that is decoded for a thumbnail
_MOST = 50  # rows of a table
_SMALLEST, _LONGEST = 8, 4096  # sides of a tensor that is looked at as a picture
_CELL = "text-align:left;vertical-align:middle;white-space:nowrap"


def dataset_html(data: Dataset, rows: Sequence[Mapping[str, Any]]) -> str:
    """A heading and the first rows."""
    more = f"; the first {len(rows)}:" if len(rows) < len(data) else ""
    head = f"<b>{escape(data.reference)}</b> · {len(data):,} rows{more}"
    return f"<div><p>{head}</p>{rows_html(rows, data.columns)}</div>"


def rows_html(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """A table, a line per row, of at most 50."""
    heads = "".join(
        f'<th style="{_CELL}">{escape(each.name)}<br><small>{escape(column_text(each))}</small>'
        "</th>"
        for each in columns
    )
    lines = "".join(
        "<tr>"
        + "".join(f'<td style="{_CELL}">{_cell(row[c.name], c)}</td>' for c in columns)
        + "</tr>"
        for row in rows[:_MOST]
    )
    more = f"<p>and {len(rows) - _MOST} more</p>" if len(rows) > _MOST else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>{more}"


def _cell(value: Any, column: Column) -> str:
    told = escape(value_text(value))
    picture = thumbnail(value, column)
    if picture is None:
        return told
    kind, data = picture
    inline = base64.b64encode(data).decode()
    style = f"max-width:{_SIDE}px;max-height:{_SIDE}px;min-width:32px;image-rendering:pixelated"
    return f'<img src="data:image/{kind};base64,{inline}" title="{told}" style="{style}">'


def thumbnail(value: Any, column: Column) -> tuple[str, bytes] | None:
    """(format, bytes) of a small picture of the value; None for what is no picture."""
    try:
        if isinstance(value, np.ndarray):
            picture = _as_picture(value, column)
            return None if picture is None else ("png", png(_small(picture)))
        if column.meaning == "encoded-image" and isinstance(value, bytes | Reference):
            return _encoded(value)
    except (PenstockError, ValueError):  # a picture that cannot be shown is told in words
        return None
    return None


def _encoded(value: bytes | Reference) -> tuple[str, bytes] | None:
    from penstock.data.decoding import decode_image
    from penstock.data.showing import format_of

    data = value if isinstance(value, bytes) else value.read(0, _LARGEST)
    kind = format_of(data)
    if len(data) <= _INLINE and kind in ("jpeg", "png", "gif", "webp"):
        return kind, data
    if len(data) >= _LARGEST:
        return None
    found = _as_picture(decode_image(data), Column("", "tensor", "uint8", (), "image"))
    return None if found is None else ("png", png(_small(found)))


def _as_picture(value: Array, column: Column) -> Array | None:
    """uint8 [H, W] or [H, W, 3 or 4]; None for what nobody would look at."""
    meant = column.meaning == "image"
    first = column.options.get("channels") == "first" or (
        value.ndim == 3 and value.shape[2] not in (1, 3, 4) and value.shape[0] in (1, 3, 4)
    )
    if value.ndim == 3 and first:
        value = np.moveaxis(value, 0, 2)
    if value.ndim == 3 and value.shape[2] == 1:
        value = value[:, :, 0]
    flat = value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (3, 4))
    if not flat or max(value.shape[:2]) > _LONGEST:
        return None
    if not meant and (min(value.shape[:2]) < _SMALLEST or column.meaning):
        return None
    return _as_bytes(value)


def _as_bytes(value: Array) -> Array:
    """uint8 as it is, everything else stretched from its lowest to its highest value."""
    if value.dtype == np.uint8:
        return value
    wide = np.nan_to_num(value.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(wide.min()), float(wide.max())
    stretched: Array = ((wide - low) * (255 / (high - low) if high > low else 0.0)).astype(np.uint8)
    return stretched


def _small(picture: Array) -> Array:
    """Every n-th pixel, so that no side is longer than a thumbnail's."""
    step = -(-max(picture.shape[:2]) // _SIDE)
    return picture[::step, ::step]


def png(picture: Array) -> bytes:
    """A PNG file of uint8 [H, W], [H, W, 3] or [H, W, 4]. Source: RFC 2083."""
    height, width = picture.shape[:2]
    colour = {2: 0, 3: 2, 4: 6}[2 if picture.ndim == 2 else picture.shape[2]]
    lines = np.ascontiguousarray(picture).reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
