"""The trainings that are compared: the scripts, and the commands that start them.

`recipe.py` has what all of them train and the instrument; each is copied into a new folder.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.frame.bench import Bench

_SCRIPTS = ("recipe.py", "with_penstock.py", "with_torch.py")
Command = list[str | Path]


def project(bench: Bench) -> Path:
    """A new folder with the scripts, as a user's project; a Penstock home is made in it."""
    folder = bench.folder("project")
    for name in _SCRIPTS:
        shutil.copy(Path(__file__).with_name(name), folder)
    return folder


def penstock_command(ranks: int, steps: int, *files: Path) -> Command:
    return [sys.executable, "with_penstock.py", str(ranks), str(steps), *files]


def bare_command(python: Path, steps: int, file: Path) -> Command:
    return [python, "with_torch.py", str(steps), file]


def torchrun_command(
    python: Path, ranks: int, steps: int, file: Path, restarts: int = 0
) -> Command:
    launcher = [python, "-m", "torch.distributed.run", "--standalone"]
    sizes = [f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"]
    return [*launcher, *sizes, "with_torch.py", str(steps), file]
