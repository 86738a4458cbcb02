"""Sizes and durations between numbers and words."""

from __future__ import annotations

import re

from penstock.base.errors import BadInput

_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_FORM = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]+)\s*")


def _parse(text: str, table: dict[str, float] | dict[str, int], example: str) -> float:
    match = _FORM.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in table:
        raise BadInput(f'"{text}" is not a quantity', f'Write it like "{example}".', text=text)
    return float(match.group(1)) * table[unit]


def seconds(value: float | str) -> float:
    """Seconds from a number or from text such as "250ms", "30s", "5m", "2h".

    >>> seconds("5m")
    300.0
    """
    return float(value) if isinstance(value, int | float) else _parse(value, _SECONDS, "30s")


def size(value: int | str) -> int:
    """Bytes from a number or from text such as "64MiB" or "2GB".

    >>> size("1KiB")
    1024
    """
    return value if isinstance(value, int) else int(_parse(value, _BYTES, "64MiB"))


def show_count(count: int, noun: str) -> str:
    """How many of something, for people.

    >>> show_count(1, "rank"), show_count(1257, "row")
    ('1 rank', '1,257 rows')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def show_bytes(count: float) -> str:
    """Bytes for people.

    >>> show_bytes(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def show_seconds(value: float) -> str:
    """A duration for people.

    >>> show_seconds(0.012), show_seconds(75), show_seconds(7260)
    ('12 ms', '1m 15s', '2h 1m')
    """
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)}m {int(value % 60)}s"
    return f"{int(value // 3600)}h {int(value % 3600 // 60)}m"
