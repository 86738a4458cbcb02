"""At 90 % of an epoch: from nothing to the first batch, beside loaders that resume exactly.

Rows of a kilobyte (int32[256]) in random order, batches of 64, in the process of the loop. The
clock runs from opening the data with a state in hand to the first batch; imports are done, the
page cache is warm, and one resume before was not counted. 10 % is measured too: the ratio shows
whether the position matters. Peers keep rows as memory maps (torchdata, Grain) or in shards of
their own (Streaming); Grain's state is set to the batch's number, Streaming's to the sample's.

Prediction, before any tuning: Penstock 4 ms anywhere; Grain 5 ms anywhere; Streaming 300 ms;
torchdata in proportion to the position, as it draws the order again: 500 ms.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.frame.bench import Bench

PEERS = {
    "torchdata": ["torch", "numpy", "torchdata"],
    "streaming": ["torch", "numpy", "mosaicml-streaming"],
    "grain": ["grain", "numpy"],
}
_SUBJECTS = Path(__file__).parent / "subjects"
_TIMEOUT = 600.0
_ROWS = {True: 16_000, False: 500_000}
_LATE, _EARLY = "90% to first batch", "10% to first batch"


def measure(bench: Bench) -> None:
    subjects: list[tuple[str, Any]] = [("Penstock", sys.executable)]
    for peer in PEERS:
        if bench.quick and peer != "torchdata":
            bench.note(f"the quick run leaves out {peer}")
            continue
        try:
            subjects.append((peer, bench.python(peer)))
        except RuntimeError as error:
            bench.note(f"{peer} is left out: {error}")
    folders: dict[str, Path] = {}

    def run(subject: str, python: Any) -> None:
        script = f"resume_{subject.lower()}.py"
        keeps = "memmaps" if subject in ("torchdata", "grain") else subject
        folder = folders.get(keeps) or folders.setdefault(keeps, bench.folder(keeps))
        told = {"rows": _ROWS[bench.quick], "times": 1 if bench.quick else 3}
        log = bench.folder("log") / "log"
        command = [python, _SUBJECTS / script, folder, json.dumps(told)]
        ended = bench.start(command, log=log).wait(timeout=_TIMEOUT)
        lines = log.read_text(errors="replace").splitlines()
        found = next((each for each in reversed(lines) if each.startswith('{"10%"')), None)
        if ended or found is None:
            bench.note(f"{subject} failed: {' / '.join(lines[-2:])[-300:]}")
            return
        for share, times in json.loads(found).items():
            for each in times:
                bench.add(subject, f"{share} to first batch", "ms", each)

    calls = [lambda each=each: run(*each) for each in subjects]
    bench.alternate(bench.rounds(quick=1, full=5), *calls)
    measured = [name for name, _ in subjects[1:] if bench.median(name, _LATE) > 0]
    if measured:
        best = min(measured, key=lambda name: bench.median(name, _LATE))
        times = bench.ratio(f"{best} / Penstock", _LATE, over=best, under="Penstock")
        bench.at_least("faster than the best peer", 10, times, "times")
    late, early = bench.median("Penstock", _LATE), bench.median("Penstock", _EARLY)
    bench.at_most("90 % / 10 % of an epoch", 1.3, late / early)
