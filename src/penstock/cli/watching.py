"""A bar on stderr while a script waits for its training; nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_VALUES = 3  # scalars beside the bar


@contextmanager
def training() -> Iterator[Callable[[Any], None] | None]:
    """A function that draws a training's `Progress`; None where no person looks.

    Nothing is drawn before its first word: a run that is reused, let go of, or carried out in
    this process has none, and may have the terminal for itself (`breakpoint()`, say).
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        Elapsed(),
        TextColumn("{task.fields[values]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None, values="")

    def draw(now: Any) -> None:
        values = [f"{name} {value:.4g}" for name, value in now.values.items()]
        bar.update(
            task,
            description=now.name,
            completed=now.step,
            total=now.steps,
            values="  ".join(values[:_VALUES]),
        )
        bar.start()  # the first time; later it changes nothing

    try:
        yield draw
    finally:
        bar.stop()
