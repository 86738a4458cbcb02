"""A script that only tells what its preparations would run: the other side of `explain`.

`penstock data explain train.py` runs the script as it is, in a process whose environment names a
file (PENSTOCK_EXPLAIN). There `ps.prepare` writes its plan, a line of JSON, and goes on with the
newest version; any other verb ends the script. So code identity, parameters and sources are those
of a real run, and nothing is prepared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.base.errors import BadInput, NotFound, PenstockError, UserCodeFailed
from penstock.base.nearest import did_you_mean
from penstock.base.process import die_with_parent

if TYPE_CHECKING:
    from penstock.data import Prepared
    from penstock.jobs.stores import Stores

VARIABLE = "PENSTOCK_EXPLAIN"
_ENDED = "ended"


# in the script's process


def wanted() -> bool:
    """Whether this process is to tell its plans instead of preparing."""
    return VARIABLE in os.environ


def prepared(stores: Stores, name: str, sources: Any, options: Mapping[str, Any]) -> Prepared:
    """Tell the plan of one `ps.prepare`, and give the newest version, as if it was up to date."""
    from penstock.data.preparation import Prepared, explain
    from penstock.records import to_data

    plan = explain(stores, name, sources, **options)
    with stores.meta.read() as meta:
        newest = meta.find_version("dataset", name)
    reference = None if newest is None else newest.reference
    _tell({**to_data(plan), "to_run": plan.to_run, "newest": reference, "lines": plan.lines()})
    if newest is None:
        _end(f"{name} has no version yet, so what comes after it cannot be told")
    return Prepared(newest, True, plan.why)


def ends_at(verb: str) -> None:
    """End the script here, where it would do something else than prepare."""
    if wanted():
        _end(f"ps.{verb} comes next")


def _end(why: str) -> NoReturn:
    _tell({_ENDED: why})
    raise SystemExit(0)


def _tell(line: dict[str, Any]) -> None:
    with Path(os.environ[VARIABLE]).open("a") as stream:
        stream.write(json.dumps(line, default=str) + "\n")


# in the process that asks


def explained(
    home: Path, script: Path, arguments: Sequence[str] = (), name: str | None = None
) -> list[dict[str, Any]]:
    """The plans of a script's `ps.prepare` calls, in their order: the fields of `Plan`, with
    `to_run`, `newest` (reference) and `lines` for people.

    name  only of this dataset
    Owns the script's process, which dies with this one. Its output goes to stderr.
    Raises BadInput (no such script), NotFound (it prepares no such dataset), UserCodeFailed (it
    failed before its first preparation, or says why one cannot be planned).
    """
    if not script.is_file():
        raise BadInput(f"there is no script {script}", "Give the path of a Python file.")
    with tempfile.TemporaryDirectory(prefix="penstock-explain-") as folder:
        told = Path(folder, "plans")
        environment = {**os.environ, VARIABLE: str(told), "PENSTOCK_HOME": str(home)}
        me = os.getpid()
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if _has_file(sys.stderr) else subprocess.DEVNULL,
            preexec_fn=lambda: die_with_parent(me),
            check=False,
        )
        lines = told.read_text().splitlines() if told.exists() else []
    found = [json.loads(line) for line in lines]
    plans = [each for each in found if _ENDED not in each]
    if done.returncode != 0 or not found:
        raise _failed(script, done.returncode, len(plans))
    return plans if name is None else _of_name(plans, name, script)


def _has_file(stream: Any) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _of_name(plans: list[dict[str, Any]], name: str, script: Path) -> list[dict[str, Any]]:
    wanted = [each for each in plans if each["name"] == name]
    if not wanted:
        known = [each["name"] for each in plans]
        raise NotFound(
            f'{script.name} prepares no dataset "{name}"', did_you_mean(name, known), name=name
        )
    return wanted


def _failed(script: Path, code: int, plans: int) -> PenstockError:
    if code == 0:
        return BadInput(
            f"{script.name} ended without a call of ps.prepare",
            "Give the script that prepares; does it do so only with some arguments? They go "
            "behind its name.",
            script=str(script),
        )
    return UserCodeFailed(
        f"{script.name} ended with exit code {code} after {plans} preparations",
        "Its own message is above; `python` with the same arguments shows it too.",
        script=str(script),
    )
