"""How answers look on a terminal. The only file that imports rich for tables.

Piped, the same tables have no colours and are never cut to a width, so that grep and awk work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from penstock.base.units import show_seconds

_STYLES = {
    "running": "cyan",
    "starting": "cyan",
    "pending": "yellow",
    "stopping": "yellow",
    "draining": "yellow",
    "interrupted": "bold yellow",
    "stopped": "yellow",
    "finished": "green",
    "ready": "green",
    "ok": "green",
    "pass": "green",
    "passed": "green",
    "whole": "green",
    "complete": "green",
    "pruned": "dim",
    "waiting": "yellow",
    "warn": "yellow",
    "failed": "bold red",
    "fail": "bold red",
    "blocked": "bold red",
    "damaged": "bold red",
}
_FRAME_WIDTH = 100
_PIPED_WIDTH = 100_000  # columns; a table takes only what its content needs


class Drawing:
    """A place to draw on: tables, facts, lines."""

    def __init__(self) -> None:
        piped = not sys.stdout.isatty()
        self.console = Console(
            file=sys.stdout, width=_PIPED_WIDTH if piped else None, highlight=False
        )

    def line(self, *parts: str | Text) -> None:
        """One line of text; plain strings are never read as markup."""
        self.console.print(Text.assemble(*parts), soft_wrap=True)

    def title(self, text: str) -> None:
        self.console.print()
        self.line(Text(text, style="bold"))

    def facts(self, rows: Mapping[str, Any]) -> None:
        """Names and values beside each other; values that are None or empty are left out."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in rows.items():
            if value is not None and value not in ("", {}, []):
                grid.add_row(name, cell(value))
        self.console.print(grid)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "none"
    ) -> None:
        """A table without rules. A column named "> x" is right-aligned; empty gives one line."""
        lines = [[cell(value) for value in row] for row in rows]
        if not lines:
            self.line(Text(empty, style="dim"))
            return
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for column in columns:
            right = column.startswith("> ")
            table.add_column(
                column.removeprefix("> "), justify="right" if right else "left", overflow="fold"
            )
        for each in lines:
            table.add_row(*each)
        self.console.print(table)

    def frame(self, what: RenderableType) -> None:
        """Something as wide as the screen; piped: 100 columns."""
        self.console.print(what, width=None if sys.stdout.isatty() else _FRAME_WIDTH)

    def indented(self, what: RenderableType) -> None:
        self.console.print(Padding(what, (0, 0, 0, 2)))


def cell(value: Any) -> Text:
    """Any value as text that is never read as markup."""
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.6g}")
    return Text(str(value))


def state(word: str) -> Text:
    """A state in its colour."""
    return Text(word, style=_STYLES.get(word.lower(), ""))


def age(at: float | None, now: float | None = None) -> str:
    """How long ago, in one unit.

    >>> age(0.0, now=7200.0), age(100.0, now=100.2), age(None)
    ('2h ago', 'now', '-')
    """
    if at is None:
        return "-"
    gone = (time.time() if now is None else now) - at
    if gone < 1:
        return "now"
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if gone >= seconds:
            return f"{int(gone // seconds)}{unit} ago"
    return f"{int(gone)}s ago"


def took(start: float, end: float | None) -> str:
    """How long something took, or has taken so far."""
    return show_seconds(max(0.0, (time.time() if end is None else end) - start))
