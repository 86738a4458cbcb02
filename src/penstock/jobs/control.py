"""Steering a run from outside: its state as people see it, stop, resume, adopt, pids."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, Protocol

from penstock.base import process
from penstock.base.errors import BadInput, Conflict
from penstock.jobs.notices import KILL
from penstock.jobs.nursery import owner as nursery
from penstock.jobs.remains import discard, read_processes
from penstock.jobs.stores import Stores
from penstock.records import Lease, Run
from penstock.records.runs import ENDED


def owner(lease: Lease | None, now: float) -> process.Identity | None:
    """The process that owns a run now, or None."""
    if lease is None or not lease.holder:
        return None
    identity = process.Identity.parse(lease.holder)
    dead = identity.is_dead()
    if dead is None:  # on another machine: only its lease can tell
        return identity if lease.expires_at > now else None
    return None if dead else identity


def state_of(run: Run, lease: Lease | None, now: float) -> str:
    """The row's state, or "interrupted" when it says running and nobody owns it."""
    if run.state not in ENDED and run.state != "pending" and owner(lease, now) is None:
        return "interrupted"
    return run.state


def controller_command(stores: Stores, run: Run) -> list[str]:
    """The command that starts a controller for a run; the spec says which program it is.

    Raises BadInput for a run that goes on only with its script, also because it was moved.
    """
    command = run.spec.get("controller")
    if not command:
        raise BadInput(
            f"run {run.id} was started inside a script and goes on only with it",
            f'Run the script again; it continues "{run.name}" where it stopped.',
        )
    home = str(stores.layout.root)
    if home not in command or not Path(run.spec["cwd"]).is_dir():
        raise BadInput(
            f"run {run.name} was started in {run.spec['cwd']}; the project or its home was moved",
            f'Run the script again where it is now; it continues "{run.name}" where it stopped.',
            cwd=run.spec["cwd"],
            home=home,
        )
    return [str(part) for part in command]


class Started(Protocol):
    """A controller that this process started, itself or through its nursery."""

    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int | None: ...


def start_controller(stores: Stores, run: Run) -> Started:
    """Start a controller in a session of its own: forked from this process's nursery, where one
    serves the run and is ready, else cold. It outlives its starter unless told otherwise."""
    logs = stores.layout.logs(run.id)
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / "controller.log"
    if nursery.serves(stores.layout.runtime(f"run/{run.id}", create=False)):
        found = nursery.start(controller_command(stores, run), log)
        if found is not None:
            return found
    with log.open("ab") as out:
        return subprocess.Popen(
            controller_command(stores, run),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=run.spec["cwd"],
            start_new_session=True,
        )


def stop(stores: Stores, run_id: str, why: str | None = None) -> Run:
    """Ask for a clean end: save, leave, resumable. An interrupted run is only marked.

    why  kept in the run's spec as "stopping" until it goes on, and told as the attempt's end
    """
    with stores.meta.write() as tx:
        run = tx.get_run(run_id)
        if run.state in ENDED:
            raise Conflict(f"run {run.name} is {run.state} already", "There is nothing to stop.")
        alive = owner(tx.find_lease(f"run/{run.id}"), tx.now()) is not None
        if alive and run.state == "stopping":
            return run  # it was asked already
        spec = {**run.spec, "stopping": why}
        run = tx.change_run(run.id, state="stopping" if alive else "stopped", spec=spec)
        body = {"by": os.getpid(), **({"why": why} if why else {})}
        tx.event(f"run/{run.id}", "run.stopping" if alive else "run.stopped", body)
    if not alive:
        discard(stores.layout.runtime(f"run/{run.id}", create=False))
    return run


def resize(stores: Stores, run_id: str, size: int) -> Run:
    """Ask for another number of ranks; a run that nobody owns has it when it goes on.

    Raises Conflict for one that ended, BadInput for a number that it may not have.
    """
    with stores.meta.write() as tx:
        run = tx.get_run(run_id)
        sizes = run.spec.get("elastic")
        if run.state == "finished":
            raise Conflict(f"run {run.name} is finished already", "There is nothing to resize.")
        if sizes is None:
            raise BadInput(
                f"run {run.name} has a fixed number of ranks, {run.spec.get('world_size')}",
                "Train with a range, such as workers=(1, 8), or --workers 1-8.",
            )
        if not sizes["low"] <= size <= sizes["high"]:
            raise BadInput(
                f"run {run.name} cannot have {size} ranks",
                f"Give {sizes['low']} to {sizes['high']}, as workers= says.",
            )
        run = tx.change_run(run.id, spec={**run.spec, "wanted": size})
        tx.event(f"run/{run.id}", "run.resizing", {"to": size, "by": os.getpid()})
    return run


def kill(stores: Stores, run_id: str) -> None:
    """End a run at once: its processes die, its checkpoints stay."""
    with stores.meta.read() as db:
        run = db.get_run(run_id)
        identity = owner(db.find_lease(f"run/{run.id}"), db.now())
    if identity is not None:
        process.kill_quietly(identity.pid, KILL)
        process.kill_quietly(identity.pid, signal.SIGCONT)  # one that was stopped hears it too


def resume(stores: Stores, run_id: str, detached: bool = True) -> Run:
    """Go on with a run that is not finished and that nobody owns."""
    with stores.meta.write() as tx:
        run = tx.get_run(run_id)
        if run.state == "finished":
            raise Conflict(f"run {run.name} is finished", "Start a new one with fresh=True.")
        identity = owner(tx.find_lease(f"run/{run.id}"), tx.now())
        if identity is not None:
            raise Conflict(
                f"run {run.name} is going on already (pid {identity.pid})",
                f"Watch it: penstock runs logs -f {run.name}",
            )
        controller_command(stores, run)
        client = None if detached else run.spec.get("client")
        spec = {**run.spec, "client": client, "stopping": None}
        run = tx.change_run(
            run.id, state="pending", error=None, ended_at=None, detached=detached, spec=spec
        )
        tx.event(f"run/{run.id}", "run.resumed", {"detached": detached})
    start_controller(stores, run)
    return run


def adopt(stores: Stores) -> list[str]:
    """Go on with detached runs whose owners died. Returns their ids."""
    with stores.meta.read() as db:
        now = db.now()
        candidates = [
            run
            for run in db.runs(limit=1000, states=("pending", "running", "stopping"))
            if run.detached and owner(db.find_lease(f"run/{run.id}"), now) is None
        ]
    adopted = []
    for run in candidates:
        if read_processes(stores.layout.runtime(f"run/{run.id}", create=False)):
            continue  # its agent lives and starts a controller itself
        start_controller(stores, run)
        adopted.append(run.id)
    return adopted


def pids(stores: Stores, run_id: str) -> list[dict[str, Any]]:
    """Every live process of a run: role, rank, pid; the controller first."""
    with stores.meta.read() as db:
        run = db.get_run(run_id)
        identity = owner(db.find_lease(f"run/{run.id}"), db.now())
    rows: list[dict[str, Any]] = []
    if identity is not None:
        rows.append({"role": "controller", "rank": None, "pid": identity.pid})
    for row in read_processes(stores.layout.runtime(f"run/{run.id}", create=False)):
        rows.append({"role": row["role"], "rank": row["rank"], "pid": row["pid"]})
    return rows
