"""1 % of the input files changed: how many run again, counted, and what that takes.

CSV files of 1,000 rows (id, x), a batch step that makes four columns, two workers; each file is a
unit (`unit_bytes=0`). All are prepared; then 1 % of the files, spread over the folder, are written
with other numbers and the same call is made again, and once more without any change. What runs is
counted by the step itself. Beside it the same with files that share units of 64 KiB: those that
changed run alone there, too. The sampled double run calls the step twice for some units; a file
counts once.

Prediction, before any tuning: exactly 1 % of the files; the second call takes a tenth of the first,
most of it starting Python and workers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.frame.bench import Bench

_SUBJECT = Path(__file__).parent / "subjects" / "prepare_tables.py"
_ROWS = 1_000


def measure(bench: Bench) -> None:
    files = 100 if bench.quick else 1_000
    share = files // 100
    ran: list[tuple[int, int, int]] = []

    def once(subject: str, unit_bytes: int) -> None:
        raw, home, log = bench.folder("raw"), bench.folder("home"), bench.folder("log") / "log"
        for number in range(files):
            _write(raw, number, 0)
        command = [sys.executable, _SUBJECT, raw, home, log, str(unit_bytes)]
        bench.add(subject, "all files", "s", _run(bench, command))
        every = _files(log)
        for number in bench.random.sample(range(files), share):
            _write(raw, number, 1)
        bench.add(subject, "1 % of the files changed", "s", _run(bench, command))
        some = _files(log)
        bench.add(subject, "nothing changed", "s", _run(bench, command))
        bench.add(subject, "files run again after 1 % changed", "", some)
        ran.append((every, some, _files(log)))

    bench.alternate(
        bench.rounds(quick=1, full=3),
        lambda: once("a unit for each file", 0),
        lambda: once("files share 64 KiB", 64 << 10),
    )
    bench.exactly("files that ran at first", files, max(every for every, _, _ in ran))
    bench.exactly("files that ran after 1 % changed", share, max(some for _, some, _ in ran))
    bench.exactly("files that ran after nothing changed", 0, max(none for _, _, none in ran))


def _write(folder: Path, number: int, shift: int) -> None:
    rows = range(number * _ROWS, (number + 1) * _ROWS)
    lines = "\n".join(f"{row},{row % 97}.{5 + shift}" for row in rows)
    (folder / f"part-{number:05d}.csv").write_text(f"id,x\n{lines}\n")


def _run(bench: Bench, command: Sequence[str | Path]) -> float:
    began = time.perf_counter()
    out = bench.folder("out") / "out"
    if bench.start(command, log=out).wait(timeout=600):
        raise RuntimeError(out.read_text(errors="replace")[-500:])
    return time.perf_counter() - began


def _files(log: Path) -> int:
    """How many files ran since the last look."""
    found = len(set(log.read_text().split())) if log.exists() else 0
    log.unlink(missing_ok=True)
    return found
