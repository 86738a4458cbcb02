"""A script that only tells what its preparations would run: the other side of `explain`.

`penstock data explain train.py` runs the script as it is, in a process whose environment names a
file (PENSTOCK_EXPLAIN). There `ps.prepare` writes its plan, a line of JSON, and goes on: with the
newest version where that is up to date, else with a stand-in of the version that it would make.
What reads a stand-in would run too. Any other verb ends the script, and so does opening what is not
there. So code identity, parameters and sources are those of a real run, and nothing is prepared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.base.errors import BadInput, NotFound, PenstockError, UserCodeFailed
from penstock.base.nearest import did_you_mean
from penstock.base.process import die_with_parent
from penstock.records import Reference

if TYPE_CHECKING:
    from penstock.data import Plan, Prepared
    from penstock.jobs.stores import Stores

VARIABLE = "PENSTOCK_EXPLAIN"
_ENDED = "ended"


# in the script's process


def wanted() -> bool:
    """Whether this process is to tell its plans instead of preparing."""
    return VARIABLE in os.environ


@dataclass(frozen=True, slots=True)
class _Stand:
    """The version that a preparation would have made.

    number  its number
    rows    reference of the version that has the same rows; "" where these would have to be made
    """

    number: int
    rows: str = ""

    @property
    def told(self) -> str:
        return "made anew" if self.number > 1 else "made"


_stands: dict[str, _Stand] = {}  # by name


def prepared(stores: Stores, name: str, sources: Any, options: Mapping[str, Any]) -> Prepared:
    """Tell the plan of one `ps.prepare`, and give the version that it would give."""
    from penstock.data.preparation import Prepared
    from penstock.records import Version, to_data

    with stores.meta.read() as meta:
        newest = meta.find_version("dataset", name)
    plan = _plan(stores, name, sources, options)
    reference = None if newest is None else newest.reference
    _tell({**to_data(plan), "to_run": plan.to_run, "newest": reference, "lines": plan.lines()})
    if newest is not None and plan.reused and plan.known_as == reference:
        return Prepared(newest, True, plan.why)
    number = 1 if newest is None else newest.version + 1
    _stands[name] = _Stand(number, plan.known_as)
    if options.get("bad") == "quarantine" and not plan.reused:
        _stands[f"{name}-quarantine"] = _Stand(number)
    return Prepared(Version("dataset", name, number, "", "", 0.0), True, plan.why)


def _plan(stores: Stores, name: str, sources: Any, options: Mapping[str, Any]) -> Plan:
    from penstock.data.preparation import Join, Plan, explain

    join = options.get("join")
    join = Join(*join) if isinstance(join, tuple) and len(join) == 2 else join
    other = join.other if isinstance(join, Join) else None
    for given in (sources, other):
        found = _stand_of(given)
        if found is not None and not found[1].rows:
            read, stand = found
            why = f"would run, because {read.name} would be {stand.told} first"
            return Plan(name, False, why, unknown="units are counted once it is there")
    if isinstance(join, Join):
        options = {**options, "join": replace(join, other=_known(other))}
    return explain(stores, name, _known(sources), **options)


def _stand_of(given: Any) -> tuple[Reference, _Stand] | None:
    """What a reference names, where it is a stand-in."""
    from penstock.data.preparation.sources import as_reference

    reference = as_reference(given) if isinstance(given, str) else None
    if reference is None or reference.alias is not None or reference.name not in _stands:
        return None
    stand = _stands[reference.name]
    return (reference, stand) if reference.version in (None, stand.number) else None


def _known(given: Any) -> Any:
    """The version that has the rows of a stand-in; else what was given."""
    found = _stand_of(given)
    if found is None or not found[1].rows:
        return given
    return str(replace(Reference.parse(found[1].rows), split=found[0].split))


def opened(reference: str) -> str:
    """What `ps.open` is to open here; ends the script where that would have to be made first."""
    found = _stand_of(reference) if wanted() else None
    if found is None:
        return reference
    read, stand = found
    if stand.rows:
        return str(_known(reference))
    if stand.number == 1:
        _end(f"{read.name} has no version yet, so what comes after ps.open cannot be told")
    return str(replace(read, version=stand.number - 1))  # the newest, as if it was up to date


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
