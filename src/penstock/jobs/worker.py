"""A map worker: ask for units, execute them, give results and ask for more; or all that inline."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.base.errors import PenstockError, RunFailed, UserCodeFailed
from penstock.base.layout import Layout
from penstock.blobs import Behind, open_blobs
from penstock.jobs.link import AgentLink
from penstock.jobs.map import MapWork, UnitContext, finish
from penstock.jobs.source import import_paths, load, materialise
from penstock.jobs.stores import Stores
from penstock.jobs.wire import Channel
from penstock.records import Lease, Run
from penstock.records.runs import ENDED

_BATCH_SECONDS = 0.5  # work between two commits
_BATCH_MOST = 64  # units


def main(channel: Channel, fds: list[int], payload: dict[str, Any]) -> None:
    """The entry that the image calls."""
    link = AgentLink(channel, fds, payload)
    layout = Layout(Path(payload["home"]))
    behind = Behind(open_blobs(payload["blobs"]))
    for folder in reversed(_folders(payload, layout)):
        sys.path.insert(0, folder)
    context = UnitContext(behind.blobs, layout, payload["shared"], link.rank)
    try:
        count, how = _exchange(link, context, behind, load(payload["function"]))
    except PenstockError as error:
        sys.stderr.write(f"{error.facts.get('traceback', '')}\npenstock: [{error.code}] {error}\n")
        link.tell("raised", {"step": 0, "error": error.as_dict()})
        sys.exit(1)
    link.tell(how, {"units": count})


def _folders(payload: dict[str, Any], layout: Layout) -> list[str]:
    """Of the project's sources; laid out here where that was not done for this machine."""
    if (known := payload["paths"]) is not None or not payload["source"]:
        return known or []
    blobs = open_blobs(payload["blobs"])
    folder = materialise(payload["source"], blobs, layout.sources)
    return [str(path) for path in import_paths(payload["source"], blobs, folder)]


def _exchange(
    link: AgentLink, context: UnitContext, behind: Behind, function: Any
) -> tuple[int, str]:
    """Units until there are none, or the run is to stop. A unit is done when its blobs are durable.

    Returns how many units there were, and "finished" or "drained".
    """
    count = 0
    done: dict[str, Any] = {}
    want = 1
    with behind:
        while True:
            answer = link.call("exchange", {"done": done, "want": want})
            if not (units := answer["units"]):
                return count, "drained" if "drained" in answer else "finished"
            began = time.perf_counter()
            done = {unit["key"]: execute(function, unit, context) for unit in units}
            behind.settle()
            count += len(done)
            link.step_done(count)
            want = _next_batch(len(units), time.perf_counter() - began)


def _next_batch(units: int, seconds: float) -> int:
    each = max(seconds / units, 1e-6)
    return max(1, min(_BATCH_MOST, int(_BATCH_SECONDS / each)))


def execute(function: Any, unit: dict[str, Any], context: UnitContext) -> dict[str, Any]:
    """One unit. Raises UserCodeFailed, which names the unit, from what the function raised."""
    try:
        result: dict[str, Any] = function(unit["payload"], context)
    except PenstockError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise UserCodeFailed(
            f"{kind}: {error} (unit {unit['key']})",
            "Mend the function and run it again.",
            unit=unit["key"],
            signature=f"{kind}: {error}",
            traceback="".join(traceback.format_exception(error)),
        ) from error
    return result


def inline(stores: Stores, run: Run, job: MapWork) -> None:
    """workers=0: the same units and commits, in this process, under the run's lease."""
    ttl = stores.settings.lease_seconds
    key = f"run/{run.id}"
    with stores.meta.write() as tx:
        lease = tx.take_lease(key, str(process.Identity.mine()), ttl)
        if tx.get_run(run.id).state not in ENDED:  # else it was stopped before it had an owner
            tx.change_run(run.id, state="running")
        leased = [unit.key for unit in tx.units(run.id, ("leased",))]
        tx.give_back_units(run.id, leased)
    try:
        state = _exchange_inline(stores, run, job, lease)
    except PenstockError as error:
        _end_inline(stores, run, "failed", error.as_dict())
        raise
    except BaseException:  # Ctrl-C: the lease must not outlive the call
        _end_inline(stores, run, "stopped", None)
        raise
    _end_inline(stores, run, state, None)
    if state != "finished":
        raise RunFailed(f"{run.name} was {state}", "Run it again; it continues.")


def _exchange_inline(stores: Stores, run: Run, job: MapWork, lease: Lease) -> str:
    """Until nothing is left, or the run is to stop; returns how it ended."""
    with Behind(stores.blobs) as behind:
        context = UnitContext(behind.blobs, stores.layout, run.spec["shared"], 0)
        return _rounds_inline(stores, run, job, lease, context, behind)


def _rounds_inline(
    stores: Stores, run: Run, job: MapWork, lease: Lease, context: UnitContext, behind: Behind
) -> str:
    function = load(run.spec["function"])
    want = 1
    done: dict[str, Any] = {}
    while True:
        with stores.meta.write(lease) as tx:
            lease = tx.renew_lease(lease, stores.settings.lease_seconds)
            finish(tx, run.id, done)
            going_on = tx.get_run(run.id).state == "running"
            units = tx.lease_units(run.id, lease.generation, want) if going_on else []
            counts = tx.unit_counts(run.id)
        job.gave(done)
        job.told(counts.get("done", 0))
        if not units:
            return "finished" if counts.get("done", 0) == run.spec["steps"] else "stopped"
        began = time.perf_counter()
        done = {
            unit.key: execute(function, {"key": unit.key, "payload": unit.payload}, context)
            for unit in units
        }
        behind.settle()
        want = _next_batch(len(units), time.perf_counter() - began)


def _end_inline(stores: Stores, run: Run, state: str, error: dict[str, Any] | None) -> None:
    key = f"run/{run.id}"
    with stores.meta.write() as tx:
        lease = tx.find_lease(key)
        if lease is None or lease.holder != str(process.Identity.mine()):
            return  # somebody else took over, and tells how it ends
        tx.change_run(run.id, state=state, ended_at=tx.now(), error=error)
        tx.event(key, f"run.{state}", {"error": error} if error else {})
        tx.release_lease(lease)
