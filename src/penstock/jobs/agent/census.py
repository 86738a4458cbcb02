"""Who runs under an agent: written down for others, and collected when it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.jobs.agent.children import Child


def write(runtime: Path, children: Iterable[Child], image: int | None) -> None:
    """`processes.json`, for `penstock runs pids` and for whoever cleans up after this agent."""
    rows = [
        {"role": c.role, "name": c.name, "rank": c.rank, "pid": c.pid, "started": c.started}
        for c in children
        if c.pid is not None
    ]
    owners = {"agent": os.getpid()} | ({"image": image} if image else {})
    for role, pid in owners.items():
        row = {"role": role, "name": role, "rank": None, "pid": pid}
        if (started := process.start_time(pid)) is not None:  # an image may just have died
            rows.append({**row, "started": started})
    _put(runtime, rows)


def write_alone(runtime: Path, role: str) -> None:
    """The same of a process that has no children to tell of."""
    pid = os.getpid()
    row = {"role": role, "name": role, "rank": None, "pid": pid}
    _put(runtime, [{**row, "started": process.start_time(pid)}])


def _put(runtime: Path, rows: list[dict[str, Any]]) -> None:
    target = runtime / "processes.json"
    draft = target.with_suffix(".new")
    draft.write_text(json.dumps(rows))
    draft.replace(target)


def reap_strays(image: int) -> None:
    """Collect what was orphaned below this agent; the image keeps its own account."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == image:
            return
        os.waitpid(found.si_pid, 0)
