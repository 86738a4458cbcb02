"""The language model of examples/stdlib_lm learns something, and running it again does nothing."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "stdlib_lm" / "train.py"
NAME = "stdlib-quick"


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


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_its_loss_curve_is_the_same_however_often_it_is_killed(tmp_path: Path) -> None:
    """Two ranks; SIGKILL at random moments for ranks, agent, controller and script."""
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(10**6)))
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    dice = random.Random(seed)
    quiet, hurt = Trained(tmp_path / "quiet"), Trained(tmp_path / "hurt")
    assert quiet.start().wait() == 0
    struck: list[str] = []
    script = hurt.start()
    while script.poll() is None or script.returncode != 0:
        if script.poll() is not None:
            script = hurt.start()
        time.sleep(dice.uniform(0.2, 1.5))
        role = dice.choice(["rank", "rank", "agent", "controller", "script"])
        pids = [script.pid] if role == "script" else hurt.pids(role)
        if pids and script.poll() is None and len(struck) < 12:
            os.kill(dice.choice(pids), signal.SIGKILL)
            struck.append(role)
    assert len(struck) > 3, "it was over too early"
    assert hurt.curve() == quiet.curve()
    assert len(quiet.curve()) > 50


class Trained:
    """The example in a home of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._environment = {**os.environ, "PENSTOCK_HOME": str(home)}

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(SCRIPT), "--quick"]
        return subprocess.Popen(command, cwd=SCRIPT.parent, env=self._environment)

    def _ask(self, *words: str) -> Any:
        command = [sys.executable, "-m", "penstock.cli.main", *words, "--json"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True)
        return json.loads(done.stdout) if done.returncode == 0 else []

    def pids(self, role: str) -> list[int]:
        return [row["pid"] for row in self._ask("runs", "pids", NAME) if row["role"] == role]

    def curve(self) -> Any:
        found = self._ask("runs", "metrics", NAME, "train/bits_per_byte")
        return found["train/bits_per_byte"]
