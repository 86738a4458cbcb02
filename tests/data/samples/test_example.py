"""The robot example, smaller: it learns, and what was done is not done again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "robot" / "train.py"


def run(folder: Path) -> tuple[float, float, str]:
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=folder,
        env={**os.environ, "PENSTOCK_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    found = re.search(r"([\d.]+) when standing still, ([\d.]+) as learned", done.stdout)
    assert found, done.stderr[-2000:]
    return float(found[1]), float(found[2]), done.stderr


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.timeout(240)
def test_the_arm_learns_to_reach_and_the_second_run_reuses_it_all(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    assert len(text.splitlines()) < 150
    small = text.replace("episodes: int = 300", "episodes: int = 60")
    small = small.replace("epochs: int = 5", "epochs: int = 3").replace("10_050", "10_020")
    assert small.count("60") > text.count("60")
    (tmp_path / "train.py").write_text(small)
    still, learned, _ = run(tmp_path)
    assert learned < still / 2
    again = run(tmp_path)
    assert again[1] == learned
    assert again[2].count("reused") == 3
