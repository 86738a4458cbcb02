"""Following a run: its lines scroll by, its progress stays at the bottom of the terminal.

The one thread that this starts asks the home for the run's step twice a second; it ends with the
iteration, however that ends.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from penstock.cli.frame import options

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from penstock.home import Home

_EVERY = 0.5  # seconds between two looks at the step


def lines_with_progress(
    home: Home, run: str, rank: int | None, follow: bool, every: bool
) -> Iterator[str]:
    """The log's lines; the bar is drawn only where a person follows."""
    lines = home.logs(run, rank=rank, follow=follow, every=every)
    person = sys.stdout.isatty() and sys.stderr.isatty()
    if not follow or options.json or not person:
        yield from lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeElapsedColumn as Elapsed

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Elapsed(),
        console=Console(stderr=True),
        transient=True,
    )
    ended = threading.Event()
    with bar:
        task = bar.add_task(run, total=None)
        watcher = threading.Thread(
            target=_watch, args=(home, run, bar, task, ended), name="penstock-progress", daemon=True
        )
        watcher.start()
        try:
            yield from lines
        finally:
            ended.set()
            watcher.join()


def _watch(home: Home, run: str, bar: Progress, task: TaskID, ended: threading.Event) -> None:
    """Move the bar until told to end; a home that cannot answer just leaves the bar where it is."""
    from penstock.base.errors import PenstockError

    while not ended.wait(_EVERY):
        try:
            view = home.run(run).run
        except PenstockError:
            continue
        bar.update(
            task, completed=view.step, total=view.steps, description=f"{view.name} {view.state}"
        )
