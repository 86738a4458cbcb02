"""The logs of a run's processes: one file each, kept with the run, followed while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock.base.errors import NotFound
from penstock.base.layout import Layout
from penstock.base.nearest import did_you_mean

_POLL = 0.1  # seconds between looks at files that grow


def files(
    layout: Layout,
    run_id: str,
    rank: int | None = None,
    every: bool = False,
    may_come: bool = False,
) -> list[Path]:
    """rank  only that one; every: also those of controller, agent, image and sidecars

    Raises NotFound when there is no such rank; with `may_come` it may still be started.
    """
    folder = layout.logs(run_id)
    found = sorted(folder.glob("*.log")) if folder.is_dir() else []
    if rank is not None:
        chosen = [path for path in found if _whose(path) == f"rank-{rank}"]
        if not chosen and not may_come:
            known = [_whose(path).removeprefix("rank-") for path in found if "rank-" in path.stem]
            raise NotFound(
                f"run {run_id} has no log of rank {rank}", did_you_mean(str(rank), known)
            )
        return chosen
    return found if every else [path for path in found if path.stem.startswith("rank-")]


def _whose(path: Path) -> str:
    """ "rank-0" of rank-0.log, and of rank-0@NODE.log, a copy from another machine."""
    return path.stem.partition("@")[0]


def follow(
    layout: Layout,
    run_id: str,
    rank: int | None = None,
    every: bool = False,
    ended: Callable[[], bool] | None = None,
) -> Iterator[str]:
    """Lines, each with its process's name in front when there are several.

    ended  None: only what is there now. Otherwise lines are followed until it says True.
    """
    offsets: dict[Path, int] = {}
    rests: dict[Path, str] = {}
    while True:
        over = ended is None or ended()  # asked before reading, so that the last lines are read
        paths = files(layout, run_id, rank, every, may_come=not over)
        for path in paths:
            prefix = f"[{path.stem}] " if len(paths) > 1 else ""
            for line in _new_lines(path, offsets, rests, over):
                yield prefix + line
        if over:
            return
        time.sleep(_POLL)


def _new_lines(
    path: Path, offsets: dict[Path, int], rests: dict[Path, str], over: bool
) -> Iterator[str]:
    with path.open("rb") as stream:
        stream.seek(offsets.get(path, 0))
        data = stream.read()
        offsets[path] = stream.tell()
    text = rests.pop(path, "") + data.decode(errors="replace")
    lines = text.split("\n")
    rest = lines.pop()
    if rest and not over:
        rests[path] = rest
    elif rest:
        lines.append(rest)
    yield from lines
