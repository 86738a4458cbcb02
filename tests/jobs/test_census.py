"""What an agent writes down about its processes tells the living from the dead."""

import json
import os
import subprocess
from pathlib import Path

from penstock.jobs.agent import census
from penstock.jobs.remains import clear, read_processes


def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_an_image_that_just_died_is_not_among_the_living(tmp_path: Path) -> None:
    census.write(tmp_path, [], dead_pid())
    assert [row["pid"] for row in read_processes(tmp_path)] == [os.getpid()]


def test_a_process_that_died_before_it_was_written_down_is_not_waited_for(tmp_path: Path) -> None:
    row = {"role": "rank", "name": "rank-0", "rank": 0, "pid": dead_pid(), "started": None}
    (tmp_path / "processes.json").write_text(json.dumps([row]))
    assert read_processes(tmp_path) == []
    clear(tmp_path)
    assert not (tmp_path / "processes.json").exists()
