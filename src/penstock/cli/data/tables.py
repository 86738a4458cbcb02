"""How rows, statistics, differences, lineage and damage look on a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.base.errors import NotFound
from penstock.base.nearest import did_you_mean
from penstock.cli.data.drawing import pairs

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.records.looks import (
        Ancestor,
        ColumnSummary,
        DataDiff,
        DataRows,
        DataVerdict,
        Histogram,
    )

_BARS = " ▁▂▃▄▅▆▇█"
_CELL = 60  # characters of a value


def draw_rows(draw: Drawing, found: DataRows) -> None:
    """A line per row under the columns' names."""
    from penstock.data.showing import value_text

    draw.table(
        [f"{name} {kind}" for name, kind in found.columns.items()],
        [[value_text(row[name], _CELL) for name in found.columns] for row in found.rows],
        empty="no rows",
    )
    last = found.start + len(found.rows) - 1
    draw.line(f"{found.reference}: rows {found.start} to {last} of {found.total:,}")


def chosen(found: Sequence[ColumnSummary], columns: Sequence[str] | None) -> list[ColumnSummary]:
    """Those of some columns. NotFound offers the nearest."""
    known = {each.column: each for each in found}
    for name in columns or ():
        if name not in known:
            raise NotFound(f'there is no column "{name}"', did_you_mean(name, known), column=name)
    return [known[name] for name in columns or known]


def draw_summaries(draw: Drawing, found: Sequence[ColumnSummary]) -> None:
    """A line per column."""
    draw.table(
        ("column", "type", "> rows", "> missing", "> distinct", "> min", "> mean", "> std",
         "> max", "histogram"),
        [
            (
                each.column,
                each.type,
                f"{each.rows:,}",
                _missing(each),
                "" if each.distinct is None else f"{each.distinct:,}",
                _number(each.min),
                _number(each.mean),
                _number(each.std),
                _number(each.max),
                _shape(each),
            )
            for each in found
        ],
        empty="no columns",
    )  # fmt: skip


def _missing(found: ColumnSummary) -> str:
    told = [f"{found.nulls:,}"] if found.nulls else []
    return " + ".join(told + ([f"{found.not_finite:,} NaN"] if found.not_finite else [])) or "0"


def _number(value: float | str | None) -> str:
    """To four digits; of a time the text, to the second."""
    if isinstance(value, str):
        return re.sub(r"[.]\d+", "", value)
    return "" if value is None else f"{value:.4g}"


def _shape(found: ColumnSummary) -> str:
    """A histogram; of texts the most frequent ones."""
    if found.type.startswith("text") and found.top:
        return ", ".join(f"{value} {count:,}" for value, count in found.top[:4])
    return "" if found.histogram is None else bars(found.histogram)


def bars(found: Histogram) -> str:
    """A bar per count, between the ends. What is there is never drawn as nothing.

    >>> from penstock.records.looks import Histogram
    >>> bars(Histogram(0.0, 1.0, [1000.0, 0.0, 1.0, 500.0]))
    '0 █ ▁▄ 1'
    """
    most = max(found.counts, default=0.0) or 1.0
    steps = len(_BARS) - 1
    drawn = "".join(_BARS[max(1, round(n / most * steps)) if n > 0 else 0] for n in found.counts)
    return f"{_number(found.low)} {drawn} {_number(found.high)}"


def draw_diff(draw: Drawing, found: DataDiff) -> None:
    """Counts, keys of the first rows of each sort, columns, drift."""
    from rich.text import Text

    draw.line(Text(f"{found.old} -> {found.new}", style="bold"))
    counts = {sort: getattr(found, sort) for sort in ("added", "removed", "changed", "moved")}
    draw.table(
        ("rows", "> count", "keys"),
        [
            *((sort, f"{n:,}", _keys(found.keys.get(sort, []), n)) for sort, n in counts.items()),
            ("same", f"{found.same:,}", ""),
        ],
    )
    if found.splits:
        draw.title("splits")
        draw.facts({name: f"{was:,} -> {now:,} rows" for name, (was, now) in found.splits.items()})
    if found.columns:
        draw.title("columns")
        draw.table(
            ("column", "change", "was", "is"),
            [(each["name"], each["change"], each["old"], each["new"]) for each in found.columns],
        )
    _draw_drift(draw, found)


def _keys(keys: Sequence[str], count: int) -> str:
    more = f" and {count - len(keys):,} more" if keys and count > len(keys) else ""
    return ", ".join(keys) + more


def _draw_drift(draw: Drawing, found: DataDiff) -> None:
    moved = [each for each in found.drift if each["facts"] or each["far"]]
    if not moved:
        return
    draw.title("drift")
    draw.table(
        ("column", "> psi", "> ks", "", "what"),
        [
            (
                each["column"],
                _number(each["psi"]),
                _number(each["ks"]),
                "far" if each["far"] else "",
                ", ".join(
                    f"{name} {_value(was)} -> {_value(now)}"
                    for name, (was, now) in each["facts"].items()
                ),
            )
            for each in moved
        ],
    )


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_ancestor(draw: Drawing, found: Ancestor) -> None:
    """A tree: what a version was made from below it."""
    from rich.tree import Tree

    tree = Tree(_told(found))
    _grow(tree, found)
    draw.console.print(tree, soft_wrap=True)


def _grow(tree: Any, found: Ancestor) -> None:
    for each in found.sources:
        _grow(tree.add(_told(each)), each)


def _told(found: Ancestor) -> Any:
    from rich.text import Text

    return Text.assemble(
        (f"{found.what} ", "dim"), (found.name, "bold"), (f"  {pairs(found.facts)}", "dim")
    )


def draw_verdict(draw: Drawing, found: DataVerdict) -> None:
    """One line when all is whole, else a line per damage."""
    from penstock.base.units import show_bytes
    from penstock.cli.draw import state

    word = state("whole" if found.whole else "damaged")
    draw.line(f"{found.reference}  ", word, f"  {found.blobs:,} blobs, {show_bytes(found.bytes)}")
    if found.damages:
        draw.table(
            ("part", "where", "digest", "what"),
            [(each.part, each.where, each.digest, each.error) for each in found.damages],
        )
