"""The language model of examples/stdlib_lm learns something, and running it again does nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "stdlib_lm" / "train.py"


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.timeout(300)
def test_it_beats_the_frequency_of_bytes_and_is_remembered(tmp_path: Path) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")}
        return subprocess.run(
            [sys.executable, str(SCRIPT), "--quick"],
            cwd=SCRIPT.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )

    first, again = run(), run()
    told = re.search(r"bits per byte: ([\d.]+); by frequency ([\d.]+)", first.stdout)
    assert told is not None, first.stdout
    found, frequency = map(float, told.groups())
    assert found < 0.9 * frequency
    assert again.stdout == first.stdout, "the same model, so the same text"
    assert again.stderr.count("reused") == 2


@pytest.mark.torch
def test_what_it_would_prepare_is_told_beforehand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "penstock.cli.main", "data", "explain", str(SCRIPT), "--json"]
    environment = {**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*command, "--", "--quick"], env=environment, capture_output=True, text=True, check=True
    )
    assert '"name": "stdlib-quick"' in done.stdout
    assert '"newest": null' in done.stdout
