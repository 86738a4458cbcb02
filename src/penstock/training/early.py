"""How a script's runs start from its nursery, and how a nursery begins early.

A script that trained before begins its nursery at once, beside its own imports and data. What an
image depends on, its threads above all, is known for certain only by `ps.train`. So each script
leaves a note of what its last run had, and `ps.main` begins with that. A note that has become wrong
costs the time of an import in another process: `ps.train` compares and replaces.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.base.layout import Layout
from penstock.jobs.nursery import owner
from penstock.jobs.nursery.asking import surroundings

if TYPE_CHECKING:
    from penstock.jobs.control import Started
    from penstock.jobs.stores import Stores
    from penstock.records import Run

LATER = ("penstock.training.controller",)  # what only controllers import


def start(stores: Stores, run: Run, alone: bool = False) -> Started:
    """Start a run's controller, from this script's nursery where there is one.

    alone  the script is about to end: no nursery is begun for it
    """
    from penstock.jobs import control  # not before the nursery has begun: it takes a while

    wanted = surroundings(run.spec)
    if not alone:
        owner.begin(wanted, LATER)
        note(stores.layout, wanted)
    owner.serve(wanted, stores.layout.runtime(f"run/{run.id}"), only_ready=alone)
    return control.start_controller(stores, run)


def note(layout: Layout, wanted: dict[str, Any] | None) -> None:
    """Leave word for the next start of this script; None: it is to begin nothing."""
    path = _path(layout)
    if path is None:
        return
    with suppress(OSError):  # only a hint
        if wanted is None:
            path.unlink(missing_ok=True)
        elif _read(path) != wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".new")
            draft.write_text(json.dumps(wanted))
            draft.replace(path)


def begin(layout: Layout) -> bool:
    """Begin what the note of this script's last run says; False where there is none."""
    path = _path(layout)
    found = None if path is None else _read(path)
    if found is None or found["cwd"] != str(Path.cwd()):
        return False
    owner.begin(found, LATER)
    return True


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and found.keys() == {"preload", "image_env", "cwd"}
    return found if whole else None


def _path(layout: Layout) -> Path | None:
    """One note a script; None for what is no script, such as a prompt."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is None:
        return None
    name = hashlib.sha256(str(Path(script).resolve()).encode()).hexdigest()[:20]
    return layout.starts / f"{name}.json"
