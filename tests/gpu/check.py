"""`make gpu-check`: run what only a GPU can show, and print its figures as a table and as JSON.

python tests/gpu/check.py [--json FILE]

Exit codes: 0, all that was run holds; 1, something does not, or no figure was told; 3, torch sees
no CUDA device, so that nothing was checked. It takes the Python that it is started with, and needs
no network: Penstock is imported from this checkout where it is not installed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_NOTHING = 3
_MOST = 570  # seconds; what was told by then is still reported
_NEEDED = (
    "torch", "pytest", "pytest_timeout", "hypothesis", "alembic", "grpc", "numpy", "psutil",
    "pyarrow", "pydantic", "rich", "sqlalchemy", "xxhash",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, help="where figures and outcome go too")
    given = parser.parse_args(arguments)
    if (why := missing()) is not None:
        print(f"gpu-check: {why}: nothing was checked", file=sys.stderr)
        return _NOTHING
    began = time.monotonic()
    code, rows = run()
    seconds = time.monotonic() - began
    report = {**surroundings(), "seconds": round(seconds, 1), "exit": code, "figures": rows}
    print(table(report))
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(code != 0 or not rows)


def missing() -> str | None:
    """Why nothing can be checked here."""
    import importlib.util

    absent = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        return f"{sys.executable} has no {', '.join(absent)}"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} sees no CUDA device"
    return None


def run() -> tuple[int, list[dict[str, Any]]]:
    """pytest's exit code, and the figures that its tests told."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command += [f"--session-timeout={_MOST}", "--durations=20", "-m", "gpu", "tests/gpu"]
    source = str(ROOT / "src")
    path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        environment = {**os.environ, "PYTHONPATH": path, "GPU_CHECK_FIGURES": str(figures)}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        lines = figures.read_text().splitlines() if figures.is_file() else []
    return done.returncode, [json.loads(line) for line in lines]


def surroundings() -> dict[str, Any]:
    import torch

    return {
        "date": time.strftime("%Y-%m-%d"),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "gpus": torch.cuda.device_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
    }


def table(report: dict[str, Any]) -> str:
    """For people."""
    rows = [(each["scenario"], each["figure"], _shown(each)) for each in report["figures"]]
    widths = [max([len(row[n]) for row in rows] or [0]) for n in range(3)]
    head = f"{report['gpu']}, torch {report['torch']}, CUDA {report['cuda']}, {report['date']}"
    lines = ["", head, ""]
    before = ""
    for scenario, name, value in rows:
        shown = scenario if scenario != before else ""
        lines.append(f"{shown:<{widths[0]}}  {name:<{widths[1]}}  {value:>{widths[2]}}".rstrip())
        before = scenario
    outcome = "all hold" if report["exit"] == 0 else "NOT all hold: see above"
    return "\n".join([*lines, "", f"{len(rows)} figures in {report['seconds']:.0f} s; {outcome}"])


def _shown(row: dict[str, Any]) -> str:
    return f"{row['value']:.4g} {row['unit']}".strip()


if __name__ == "__main__":
    sys.exit(main())
