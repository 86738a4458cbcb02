"""Environments of peers: `.bench/NAME`, one per peer, because their dependencies may conflict.

Owner of `.bench`: this module. The file `made-from` is written last, so a half-made environment is
made again; so is one whose packages or pins have changed. uv makes it where it can be had
(three times faster), pip otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HOME = ROOT / ".bench"
_PINS = ROOT / "constraints.txt"


def make(
    name: str, packages: list[str], say: Callable[[str], None], pins: Path | None = _PINS
) -> Path:
    """The interpreter of environment `name` with these packages, installed first if need be.

    pins  None: for a peer that cannot live with ours; it must name its own versions

    Raises RuntimeError when they cannot be installed; nothing is left then.
    """
    folder = _HOME / name
    wanted = _stamp(packages, pins)
    stamp = folder / "made-from"
    if stamp.is_file() and stamp.read_text() == wanted:
        return folder / "bin" / "python"
    say(f"making .bench/{name}: {', '.join(packages)} ...")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    try:
        _install(folder, packages, pins)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RuntimeError(f"the environment of {name} cannot be made: {error}") from error
    stamp.write_text(wanted)
    return folder / "bin" / "python"


def versions(python: Path, packages: list[str]) -> dict[str, str]:
    """What is installed there, as that interpreter says."""
    code = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    )
    names = [package.partition("=")[0].partition("[")[0] for package in packages]
    done = subprocess.run(
        [python, "-c", code, *names], check=True, capture_output=True, text=True, timeout=60
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _install(folder: Path, packages: list[str], pins: Path | None) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pinned = packages if pins is None else ["-c", str(pins), *packages]
    env = {
        **os.environ,
        "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""),
        "UV_COMPILE_BYTECODE": "1",
    }
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    if subprocess.run([*uv, *pinned], env=env, check=False).returncode != 0:
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
        subprocess.run([*pip, *pinned], check=True)


def _stamp(packages: list[str], pins: Path | None) -> str:
    text = json.dumps([sorted(packages), pins.read_text() if pins else "", sys.version])
    return hashlib.sha256(text.encode()).hexdigest()
