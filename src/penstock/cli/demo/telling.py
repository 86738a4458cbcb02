"""How the demo speaks: a column of words, lines beside them, a spinner while work is going on."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape

_WIDTH = 7  # of the column of words


class Teller:
    """quiet: nothing is printed (for --json)."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(quiet=quiet, highlight=False, soft_wrap=True)

    def __call__(
        self, word: str, text: str, reused: bool = False, good: bool | None = None
    ) -> None:
        """One line. good: True green, False red; reused: said at its end."""
        style = {True: "green", False: "bold red", None: ""}[good]
        if text.startswith("$"):
            style = "yellow"
        body = f"[{style}]{escape(text)}[/]" if style else escape(text)
        mark = " [dim](reused)[/]" if reused else ""
        self._console.print(f"[bold cyan]{word:<{_WIDTH}}[/]{body}{mark}")

    def plain(self, text: str) -> None:
        self._console.print(f"[dim]{escape(text)}[/]")

    def progress(self, what: str) -> Progress:
        return Progress(self._console, what)


class Progress:
    """A spinner on a terminal, nothing elsewhere."""

    def __init__(self, console: Console, what: str) -> None:
        self._what = what
        self._status: Any = console.status(what) if console.is_terminal else None

    def at(self, step: int, total: int | None) -> None:
        if self._status is not None:
            self._status.update(f"{self._what} · step {step}" + (f" of {total}" if total else ""))

    def __enter__(self) -> Progress:
        if self._status is not None:
            self._status.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.__exit__(kind, error, trace)
