"""Types of columns that files do not tell: of each file's sample, then of all files together.

A column in which at least 95 % of the cells are numbers (or times, or flags) is one of numbers: the
few others are bad records with their lines, as every later misfit is. A column that is mixed
beyond that is text.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

ENOUGH = 0.95  # of all cells of a column: they say its type
_HALF = 0.5  # of a file's cells: what the other files say may hold for it, too

_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?"
_FAMILIES = {
    "number": r"^[ \t]*[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf)[ \t]*$",
    "time": rf"^{_DATE}(?:[ T]{_CLOCK})?$",
    "time with zone": rf"^{_DATE}[ T]{_CLOCK}(?:Z|[+-]\d\d(?::?\d\d)?)$",
    "time of day": rf"^{_CLOCK}$",
    "flag": r"^(?:true|false|True|False|TRUE|FALSE)$",
}


@dataclass(frozen=True, slots=True)
class Found:
    """What a file's sample says of one column.

    type    of the cells that are alike; null where there is no cell
    cells   that are not missing
    fits    how many of them are of `type`
    always  whether no row lacks it
    """

    type: pa.DataType
    cells: int
    fits: int
    always: bool = True

    @property
    def share(self) -> float:
        return self.fits / self.cells if self.cells else 1.0


def of_text(cells: pa.ChunkedArray, always: bool) -> Found:
    """What most of some texts are: numbers, times, flags or only text. None is missing."""
    if not len(cells):
        return Found(pa.null(), 0, 0, always)
    for family, pattern in _FAMILIES.items():
        mask = pc.match_substring_regex(cells, pattern)
        fits = int(pc.sum(mask).as_py() or 0)
        if fits < _HALF * len(cells):
            continue
        alike = cells.filter(mask)
        if family.startswith("time") and family != "time of day":
            alike = alike.filter(_in_the_calendar(alike))
        kind = _narrowest(alike)
        if not pa.types.is_string(kind):
            return Found(kind, len(cells), len(alike), always)
    return Found(pa.string(), len(cells), len(cells), always)


def _in_the_calendar(times: pa.ChunkedArray) -> pa.ChunkedArray:
    days = pc.utf8_slice_codeunits(times, 0, 10)
    good = [day for day in pc.unique(days).to_pylist() if _is_day(day)]
    return pc.is_in(days, pa.array(good, pa.string()))


def _is_day(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _narrowest(cells: pa.ChunkedArray) -> pa.DataType:
    """Arrow's own choice for texts without delimiters, quotes and line ends."""
    if not len(cells):
        return pa.string()
    data = "\n".join(["x", *cells.to_pylist(), ""]).encode()
    read = pacsv.ReadOptions(use_threads=False, block_size=len(data) + 1)
    return pacsv.read_csv(io.BytesIO(data), read).schema.field(0).type


def decided(each: Mapping[str, Found], of_all: bool) -> dict[str, pa.DataType]:
    """File -> type of one column: where a file is mixed, the cells of all files decide.

    of_all  whether text holds what is no number (CSV); a value of JSON stays what it is
    """
    if not of_all:
        return {file: found.type for file, found in each.items()}
    mixed = {file for file, found in each.items() if found.share < ENOUGH}
    kinds = {found.type for found in each.values() if not _only_text(found.type)}
    if mixed and together(kinds) is not None:
        some = [found for found in each.values() if not _only_text(found.type)]
        if sum(found.fits for found in some) >= ENOUGH * sum(found.cells for found in some):
            mixed = set()
        else:
            mixed |= {file for file, found in each.items() if found.fits < found.cells}
    return {f: pa.string() if f in mixed else found.type for f, found in each.items()}


def _only_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_null(kind))


def together(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """The narrowest type that holds all of these without a loss of kind: whole numbers are
    numbers, dates are times. None where there is none."""
    some = list(dict.fromkeys(kind for kind in kinds if not pa.types.is_null(kind)))
    if any(pa.types.is_timestamp(kind) for kind in some):
        some = [pa.timestamp("s") if pa.types.is_date32(kind) else kind for kind in some]
    if not some:
        return pa.null()
    try:
        each = [pa.schema([("x", kind)]) for kind in some]
        return pa.unify_schemas(each, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def most(rows: Sequence[tuple[pa.DataType, int]]) -> tuple[pa.DataType, int]:
    """(the type that holds the most rows, how many) where parts of one file differ; of equally
    many the first. Types that go together count as one."""
    kinds = [kind for kind, many in rows if many]
    best = (together(kinds) or pa.null(), -1)
    if together(kinds) is not None:
        return best[0], sum(many for _, many in rows)
    for kind in dict.fromkeys(kinds):
        alike = [(other, n) for other, n in rows if together([kind, other]) is not None]
        if (many := sum(n for _, n in alike)) > best[1]:
            best = (together([other for other, _ in alike]) or kind, many)
    return best
