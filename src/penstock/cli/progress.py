"""A bar, or a line, on stderr while something long goes on; nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penstock.cli.frame import options


@contextmanager
def progress(title: str, unit: str = "rows") -> Iterator[Callable[[int, int], None] | None]:
    """A function of (done, in all) that moves the bar; None where no person looks.

    unit  "bytes" shows them as such, any other word is a count
    """
    if options.json or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    counted = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        counted,
        Remaining(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def doing() -> Iterator[Callable[[str], None]]:
    """A function of what is being done now, which a line on stderr shows while a person looks."""
    if options.json or not sys.stderr.isatty():
        yield lambda what: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as line:
        yield lambda what: line.update(Text(what))
