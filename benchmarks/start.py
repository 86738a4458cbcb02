"""The command, or the call of ps.train -> the first completed step, beside bare torch and torchrun.

Cold: a new home and a new process; the files of Python and torch are in the page cache and
compiled, on both sides. Warm: the second ps.train in one script, from its call. No goal: Penstock
does more at the start (it keeps the code, the run and an image to fork from) and the figures say
what that costs.
"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.frame.bench import Bench
from benchmarks.subjects import Command, bare_command, penstock_command, project, torchrun_command
from benchmarks.subjects.steps import wait_for

PEERS = {"torch": ["torch", "numpy"]}
STEPS = 5
PATIENCE = 60.0  # seconds until a start counts as failed


def measure(bench: Bench) -> None:
    python = bench.python("torch")

    def penstock(ranks: int) -> None:
        folder = project(bench)
        cold, warm = folder / "cold", folder / "warm"
        command = penstock_command(ranks, STEPS, cold, warm)
        subject = f"Penstock, {ranks} rank{'s' * (ranks > 1)}"
        try:
            _cold(bench, subject, folder, command, cold)
            _warm(bench, subject, warm)
        finally:
            bench.children.clear()

    def peer(subject: str, ranks: int) -> None:
        folder = project(bench)
        file = folder / "cold"
        command = bare_command(python, STEPS, file)
        if ranks > 1:
            command = torchrun_command(python, ranks, STEPS, file)
        try:
            _cold(bench, subject, folder, command, file)
        finally:
            bench.children.clear()

    bench.alternate(
        bench.rounds(quick=3, full=8),
        lambda: penstock(1),
        lambda: peer("bare torch, 1 process", 1),
        lambda: penstock(2),
        lambda: peer("torchrun, 2 ranks", 2),
    )
    one, two = "Penstock, 1 rank", "Penstock, 2 ranks"
    bench.ratio("cold, Penstock 1 / bare torch", "cold", over=one, under="bare torch, 1 process")
    bench.ratio("cold, Penstock 2 / torchrun 2", "cold", over=two, under="torchrun, 2 ranks")
    for subject in (one, two):
        cold, warm = bench.median(subject, "cold"), bench.median(subject, "warm")
        bench.ratios[f"cold / warm, {subject}"] = cold / warm


def _cold(bench: Bench, subject: str, folder: Path, command: Command, file: Path) -> None:
    began = time.time()
    bench.start(command, cwd=folder, log=folder / "log")
    steps = wait_for(file, bool, PATIENCE)
    if steps is None:
        bench.say((folder / "log").read_text(errors="replace")[-2000:])
        bench.note(f"{subject} did not start within {PATIENCE:g} s; not in its median")
        return
    bench.add(subject, "cold", "s", steps[0].at - began)


def _warm(bench: Bench, subject: str, file: Path) -> None:
    steps = wait_for(file, bool, PATIENCE)
    if steps is None:
        bench.note(f"{subject}: the second run did not start within {PATIENCE:g} s")
        return
    called = float(file.with_name(f"{file.name}.called").read_text())
    bench.add(subject, "warm", "s", steps[0].at - called)
