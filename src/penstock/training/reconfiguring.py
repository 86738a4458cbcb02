"""The config of a run with some values replaced, typed as its own source snapshot declares it.

A door must not import a project's code: its modules would stay, and those of another run's
snapshot have the same names. So a process that lives for this alone does it:
`python -m penstock.training.reconfiguring`, told and answering in JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput, PenstockError, UserCodeFailed, from_dict
from penstock.base.process import die_with_parent
from penstock.jobs.source import import_paths, materialise
from penstock.jobs.stores import Stores
from penstock.records import Run
from penstock.training import configuring
from penstock.training.overriding import applied


def reconfigured(stores: Stores, run: Run, overrides: Sequence[str]) -> dict[str, Any]:
    """The packed config of a run with overrides applied, as its spec would hold it.

    overrides  KEY=VALUE, parsed as the command line of `ps.main(fit, Config)` does
    Raises BadInput (the nearest key is offered), UserCodeFailed (the module of the config raised).
    """
    packed: dict[str, Any] = run.spec["config"]
    if not overrides:
        return packed
    if packed["type"] is None and packed["value"] is None:
        raise BadInput(
            f'run "{run.name}" has no config, so {overrides[0]} changes nothing',
            "Leave the overrides out.",
            run=run.id,
        )
    if packed["type"] is None:
        return {"type": None, "value": configuring.values(applied(packed["value"], overrides))}
    folder = materialise(run.source, stores.blobs, stores.layout.sources)
    paths = [str(path) for path in import_paths(run.source, stores.blobs, folder)]
    asked = {"paths": paths, "config": packed, "overrides": list(overrides)}
    return {"type": packed["type"], "value": _ask(asked, run)}


def _ask(asked: dict[str, Any], run: Run) -> Any:
    me = os.getpid()
    cwd = run.spec["cwd"]
    done = subprocess.run(
        [sys.executable, "-m", "penstock.training.reconfiguring"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=cwd if Path(cwd).is_dir() else None,
        preexec_fn=lambda: die_with_parent(me),
        check=False,
    )
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise UserCodeFailed(
            f"importing {asked['config']['type']} ended with exit code {done.returncode}",
            "Its own message is in `stderr`; start the run again from its script.",
            stderr=done.stderr[-4000:],
        ) from None
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer["value"]


def main() -> None:
    """What the project prints while it is imported goes to stderr; stdout is the answer's."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    sys.path[:0] = asked["paths"]
    try:
        config = configuring.unpack(asked["config"])
        told = {"value": configuring.values(applied(config, asked["overrides"]))}
    except PenstockError as error:
        told = {"error": error.as_dict()}
    with answer:
        json.dump(told, answer)


if __name__ == "__main__":
    main()
