"""What an agent left of itself in its runtime folder: processes that live, and their end."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.base.errors import Unavailable
from penstock.jobs.agent.sessions import end_session


def read_processes(runtime: Path) -> list[dict[str, Any]]:
    """The rows that an agent left in its runtime folder and that are still alive."""
    try:
        rows = json.loads((runtime / "processes.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    return [row for row in rows if _is_alive(row)]


def _is_alive(row: dict[str, Any]) -> bool:
    started = process.start_time(row["pid"])
    return started is not None and started == row["started"]


def clear(runtime: Path, timeout: float = 10.0) -> None:
    """Kill what a dead agent may have left, and wait until it is gone."""
    try:
        rows = json.loads((runtime / "processes.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return
    deadline = time.monotonic() + timeout
    for row in rows:
        if _is_alive(row):
            process.kill_quietly(row["pid"], signal.SIGKILL)
        if row["role"] == "rank" and process.start_time(row["pid"]) in (None, row["started"]):
            end_session(row["pid"])
    while read_processes(runtime):
        if time.monotonic() > deadline:
            left = [row["pid"] for row in read_processes(runtime)]
            raise Unavailable(
                f"processes of an earlier attempt cannot be killed: {left}",
                "They hang in the kernel (a dead network disk?); free them, then resume the run.",
            )
        time.sleep(0.002)
    (runtime / "processes.json").unlink(missing_ok=True)


def discard(runtime: Path) -> None:
    """As `clear`, for a run that ended: its socket and spec go too."""
    clear(runtime)
    shutil.rmtree(runtime, ignore_errors=True)
