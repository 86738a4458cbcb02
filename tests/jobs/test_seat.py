"""One agent per run: whoever started it, the newest generation is the one that serves."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.jobs.agent import seat

pytestmark = pytest.mark.faults


def want(runtime: Path, generation: int) -> None:
    (runtime / "agent-spec.json").write_text(json.dumps({"generation": generation}))


def start_holder(runtime: Path, generation: int) -> "subprocess.Popen[str]":
    """A process that took the seat and holds it."""
    want(runtime, generation)
    code = (
        "import sys; from pathlib import Path; from penstock.jobs.agent import seat\n"
        f"seat.take(Path({str(runtime)!r}), {generation})\n"
        "print('taken', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "taken\n"
    return child


def test_a_newer_agent_ends_the_older_one_and_takes_its_seat(tmp_path: Path) -> None:
    older = start_holder(tmp_path, 3)
    want(tmp_path, 4)
    held = seat.take(tmp_path, 4)
    assert older.wait(10) == -9
    assert json.loads(os.pread(held, 4096, 0))["generation"] == 4
    os.close(held)


def test_an_older_agent_that_comes_late_ends_itself(tmp_path: Path) -> None:
    newer = start_holder(tmp_path, 5)
    with pytest.raises(seat.Superseded, match="generation 5"):
        seat.take(tmp_path, 4)
    assert newer.poll() is None
    newer.communicate("")


def test_an_agent_that_is_not_wanted_any_more_does_not_begin(tmp_path: Path) -> None:
    want(tmp_path, 2)
    with pytest.raises(seat.Superseded, match="2 is wanted, not 1"):
        seat.take(tmp_path, 1)


def test_an_agent_of_a_run_that_ended_does_not_begin(tmp_path: Path) -> None:
    with pytest.raises(seat.Superseded, match="ended"):
        seat.take(tmp_path / "gone", 1)
    with pytest.raises(seat.Superseded, match="ended"):
        seat.take(tmp_path, 1)


def test_a_holder_killed_at_any_line_leaves_the_seat_free(
    tmp_path: Path, in_child: Callable[..., int]
) -> None:
    want(tmp_path, 1)
    for line in range(1, 60):
        status = in_child(lambda: seat.take(tmp_path, 1), die_at=line, part="agent/seat.py")
        if status == 0:
            break
        assert status == 9
    assert status == 0
    want(tmp_path, 2)
    os.close(seat.take(tmp_path, 2))
