"""Times as whole numbers of their column's unit, and as ISO 8601 text.

Whole numbers count from 1970-01-01T00:00 (UTC where the column has a zone), times of day from
midnight; a duration is one itself. Every digit of the unit is kept, down to nanoseconds.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pyarrow as pa

from penstock.data.columns import Array, Column

_UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}  # digits after the point of a second
_EPOCH = dt.datetime(1970, 1, 1)
_DAY = 86_400
_POINT = re.compile(r"(.*:\d\d)[.,](\d+)(.*)")
_SPAN = re.compile(
    r"(-?)P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:[.,](\d+))?S)?)?", re.ASCII
)


def counts(array: pa.Array) -> Array:
    """The times that are there, as int64 of their unit."""
    array = array.drop_null().cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    found: Array = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found


def iso(value: float, column: Column) -> str:
    """A time of the column as text; the number itself where it is beyond the years 1 to 9999.

    >>> iso(1_700_000_000_500, Column("at", "time", "timestamp[ms, tz=UTC]"))
    '2023-11-14T22:13:20.5Z'
    >>> iso(19_000, Column("on", "time", "date32[day]"))
    '2022-01-08'
    """
    name, unit, zone = _parts(column.dtype)
    value = round(value)
    if name == "duration":
        return _span(value, _UNITS[unit])
    if unit == "day":
        value, unit = value * _DAY, "s"
    seconds, rest = divmod(value, 10 ** _UNITS[unit])
    try:
        moment = _EPOCH + dt.timedelta(days=seconds // _DAY, seconds=seconds % _DAY)
    except OverflowError:
        return str(value)
    if name == "date32":
        return moment.date().isoformat()
    if name in ("time32", "time64"):
        if moment.date() != _EPOCH.date():
            return str(value)
        return moment.time().isoformat() + _fraction(rest, _UNITS[unit])
    return moment.isoformat() + _fraction(rest, _UNITS[unit]) + ("Z" if zone else "")


def iso_span(value: float, column: Column) -> str:
    """A span of times of the column, such as their spread, as an ISO duration."""
    _, unit, _ = _parts(column.dtype)
    if unit == "day":
        value, unit = value * _DAY, "s"
    return _span(round(value), _UNITS[unit])


def number(text: str, column: Column) -> int:
    """The whole number that ISO text stands for in this column; the other way of `iso`.

    Without a zone, a time of a column that has one is UTC. Raises ValueError in words.
    """
    name, unit, zone = _parts(column.dtype)
    if name == "duration":
        return _span_number(text, _UNITS[unit])
    if name == "date32":
        return (dt.date.fromisoformat(text) - _EPOCH.date()).days
    split = _POINT.fullmatch(text)
    whole, digits = (split[1] + split[3], split[2]) if split else (text, "")
    if name in ("timestamp", "date64"):
        seconds = _seconds(dt.datetime.fromisoformat(whole), bool(zone))
    else:
        clock = dt.time.fromisoformat(whole)
        seconds = clock.hour * 3600 + clock.minute * 60 + clock.second
    return _with_fraction(seconds, digits, _UNITS[unit])


def is_iso(text: str) -> bool:
    """Whether a text may stand for a time of some column."""
    for kind in () if text.isdigit() else ("timestamp[ns, tz=UTC]", "time64[ns]", "duration[ns]"):
        try:
            number(text, Column("", "time", kind))
        except (ValueError, OverflowError):
            continue
        return True
    return False


def _parts(dtype: str) -> tuple[str, str, str]:
    """("timestamp", "us", "UTC") of "timestamp[us, tz=UTC]"."""
    name, _, rest = dtype.removesuffix("]").partition("[")
    unit, _, zone = rest.partition(", tz=")
    return name, unit, zone


def _fraction(rest: int, digits: int) -> str:
    text = f"{rest:0{digits}}".rstrip("0") if rest else ""
    return f".{text}" if text else ""


def _seconds(moment: dt.datetime, zoned: bool) -> int:
    if moment.tzinfo is not None:
        if not zoned:
            raise ValueError("it has a zone, the column has none")
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    apart = moment - _EPOCH
    return apart.days * _DAY + apart.seconds


def _with_fraction(seconds: int, digits: str, unit: int) -> int:
    digits = digits.rstrip("0")
    if len(digits) > unit:
        raise ValueError("it is finer than the column's unit")
    return seconds * int(10**unit) + int(digits.ljust(unit, "0") or 0)


def _span(value: int, digits: int) -> str:
    seconds, rest = divmod(abs(value), 10**digits)
    days, seconds = divmod(seconds, _DAY)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    clock = (f"{hours}H" if hours else "") + (f"{minutes}M" if minutes else "")
    if seconds or rest or not (days or clock):
        clock += f"{seconds}{_fraction(rest, digits)}S"
    day = f"{days}D" if days else ""
    return ("-" if value < 0 else "") + f"P{day}" + (f"T{clock}" if clock else "")


def _span_number(text: str, unit: int) -> int:
    found = _SPAN.fullmatch(text)
    if found is None or not any(found.groups()[1:]):
        raise ValueError("it is no duration such as P1DT2H3M4.5S")
    days, hours, minutes, seconds = (int(each or 0) for each in found.groups()[1:5])
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return (-1 if found[1] else 1) * _with_fraction(whole, found[6] or "", unit)


def told(statistic: str, value: Any, column: Column) -> Any:
    """A statistic of a column as people read it: of times ISO text, all else as it is."""
    if column.kind != "time" or value is None:
        return value
    if statistic == "std":
        return iso_span(value, column)
    return iso(value, column) if statistic in ("min", "max", "mean", "quantiles") else value
