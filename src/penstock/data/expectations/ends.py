"""Ends of ranges and edges of bins, as the file has them, in the type of their column.

Literals meet values in the type of the column: 0.1 in the file is float32(0.1) for a column of
float32, or a value that was 0.1 would lie outside of a range that ends there. Times are ISO text
in the file and whole numbers of the column's unit here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.base.errors import BadInput
from penstock.data import times
from penstock.data.columns import Array, Column

_INT64 = np.iinfo(np.int64)


def bound(limit: float, dtype: str, *, least: bool) -> Any:
    """A limit in the dtype of a column, so that equal ones are equal; None where nothing of the
    dtype is beyond it."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return kind.type(limit)
    if kind.kind == "b":
        return limit
    if not math.isfinite(limit):
        return None if (limit < 0) == least else limit
    limit = math.ceil(limit) if least else math.floor(limit)
    ends = np.iinfo(kind)
    if (limit <= ends.min) if least else (limit >= ends.max):
        return None
    return kind.type(limit) if ends.min <= limit <= ends.max else limit


def limits(values: Mapping[str, Any], column: Column) -> tuple[Any, Any]:
    """(least, most) of a range. Raises BadInput for numbers beside times, or text."""
    dtype = "int64" if column.kind == "time" else column.dtype
    least, most = (_number(values.get(name), column) for name in ("least", "most"))
    return (
        None if least is None else bound(least, dtype, least=True),
        None if most is None else bound(most, dtype, least=False),
    )


def edges(found: list[Any], column: Column) -> list[float]:
    """Edges of bins as numbers. Raises BadInput as `limits`, and when they do not ascend."""
    numbers = [_number(each, column) for each in found]
    if any(low >= high for low, high in pairwise(numbers)):
        raise BadInput(
            f'the edges of "{column.name}" do not ascend', "Sort them; none comes twice."
        )
    return numbers


def _number(given: Any, column: Column) -> Any:
    if given is None:
        return None
    if isinstance(given, str) != (column.kind == "time"):
        raise _misfit(given, column, "")
    try:
        return times.number(given, column) if isinstance(given, str) else given
    except (ValueError, OverflowError) as error:
        raise _misfit(given, column, f": {error}") from None


def _misfit(given: Any, column: Column, why: str) -> BadInput:
    return BadInput(
        f'{given!r} cannot be compared with the column "{column.name}" of {column.dtype}{why}',
        "Give numbers for numbers, ISO text for times: 2026-01-31T12:00:00, 2026-01-31, 12:00:00, "
        "P1DT2H.",
        column=column.name,
    )


def outside(numbers: Array, least: Any, most: Any) -> npt.NDArray[np.bool_]:
    """Which numbers are beyond the limits, None being none."""
    wrong = np.zeros(numbers.shape, bool)
    if least is not None:
        wrong |= numbers < least
    if most is not None:
        wrong |= numbers > most
    return wrong


def ends_told(
    what: str, low: Any, high: Any, least: Any, most: Any, column: Column | None = None
) -> str | None:
    """What is wrong with the smallest and largest value, in words; None when nothing is."""
    if low is None or high is None:
        return None
    found = []
    if least is not None and low < least:
        told = f"{shown(low, column)}, expected at least {shown(least, column)}"
        found.append(f"the smallest {what} is {told}")
    if most is not None and high > most:
        told = f"{shown(high, column)}, expected at most {shown(most, column)}"
        found.append(f"the largest {what} is {told}")
    return " and ".join(found) or None


def shown(number: Any, column: Column | None) -> str:
    """A value of a column (None: of numbers) as people read it."""
    if column is not None and column.kind == "time":
        return times.iso(number, column)
    return str(int(number)) if isinstance(number, int | np.integer) else f"{number:g}"


def inferred(low: int, high: int, column: Column) -> dict[str, str] | None:
    """The range of a column of times, a tenth of the span wider at each end where there are such
    times (a bound at zero stays one); None where its own ends are beyond the years 1 to 9999."""
    more = -(-(high - low) // 10)
    least = 0 if low >= 0 > low - more else low - more
    most = 0 if high <= 0 < high + more else high + more
    ends = [_text(least, column) or _text(low, column), _text(most, column) or _text(high, column)]
    return None if None in ends else {"least": str(ends[0]), "most": str(ends[1])}


def texts(found: list[float], column: Column) -> list[Any]:
    """Edges as the file has them; none where there are no such times."""
    if column.kind != "time":
        return list(found)
    made = [_text(round(each), column) for each in found]
    return [] if None in made else list(dict.fromkeys(made))


def _text(value: int, column: Column) -> str | None:
    if not _INT64.min <= value <= _INT64.max:
        return None
    text = times.iso(value, column)
    return None if text.lstrip("-").isdigit() else text
