"""Damage to the newest of two checkpoints: is it found, named by tensor, and the older one used?

A hundred faults, the same for all: a flipped bit, a page of 4 KiB that became zeros, an end that is
missing, at random places of the newest checkpoint's files. Every format holds the same two states
of a small network and its optimiser, and is loaded as its documentation says. Found: the load
raised, or said so. Silent: it gave other bytes than were saved. Harmless: it gave the same bytes
(the fault lies where nothing is). Named: what is said has the name of a tensor, or says that the
manifest is hit. Older used: the same call gave the older state. What a format does not offer counts
as not done.

Penstock is asked as a run asks it when it begins again. Peers are the versions in this
environment: torch.save with weights_only, safetensors, torch.distributed.checkpoint.

Prediction: Penstock 100 of each. torch.save: truncations, as the end of its zip is missing; its
CRC-32 is not looked at. safetensors: truncations, and flips in its header. DCP: as torch.save.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.frame.bench import Bench

_SUBJECT = Path(__file__).parent / "subjects" / "damage_faults.py"
_SUBJECTS = ("Penstock", "torch.save", "safetensors", "DCP")
_METRICS = ("found", "named by tensor", "older used", "silent")
_TIMEOUT = 900.0


def measure(bench: Bench) -> None:
    faults = 12 if bench.quick else 100
    found: dict[str, dict[str, int]] = {}

    def run(subject: str) -> None:
        log = bench.folder("log") / "log"
        command = [sys.executable, _SUBJECT, bench.folder("files"), subject, faults, bench.seed]
        ended = bench.start([*map(str, command)], log=log).wait(timeout=_TIMEOUT)
        lines = log.read_text(errors="replace").splitlines()
        if ended or not lines:
            bench.note(f"{subject} failed: {' / '.join(lines[-3:])}")
            return
        found[subject] = json.loads(lines[-1])
        for metric, count in found[subject].items():
            bench.add(subject, metric, f"of {faults}", count)

    for subject in _SUBJECTS:
        run(subject)
    for metric in _METRICS:
        wanted = 0 if metric == "silent" else faults
        bench.exactly(f"Penstock: {metric}", wanted, bench.median("Penstock", metric))
