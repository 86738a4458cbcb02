"""The script's view of its run: what happens is told, Ctrl-C drains, twice kills."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.base import units
from penstock.base.errors import (
    Conflict,
    DiskFull,
    NotFound,
    RunFailed,
    RunStopped,
    StoreUnreachable,
    from_dict,
)
from penstock.base.interrupts import Interrupts
from penstock.jobs import control, hang, stragglers
from penstock.jobs.holding import AWAY
from penstock.jobs.remains import read_processes
from penstock.jobs.stores import Stores
from penstock.records import Event, Run
from penstock.records.runs import ENDED
from penstock.training.watching import OnProgress, Watch

_NO_ROOM = 64 << 10  # bytes
_PATIENCE = AWAY + 60.0  # seconds without the meta store: not less than its controller waits


def follow(
    stores: Stores,
    run: Run,
    child: control.Started | None,
    cursor: int,
    say: Callable[[str], None],
    on_progress: OnProgress | None,
    interrupts: Interrupts,
) -> Run:
    """Wait for the end of a run. Returns its row; raises what it failed with, or RunStopped."""
    watch = None if on_progress is None else Watch(stores, run, on_progress)
    heard, away_since = 0, None
    while True:
        try:
            if heard < interrupts.count:
                heard = interrupts.count
                _interrupt(stores, run, heard, say)
            cursor = tell_events(stores, run.id, cursor, say, timeout=0.2)
            with stores.meta.read() as db:
                run = db.get_run(run.id)
            if run.state in ENDED:
                tell_events(stores, run.id, cursor, say)
                break
            if watch is not None:
                watch.tell(run)
            _look_for_life(stores, run, child)
            away_since = None
        except StoreUnreachable as error:  # its controller waits likewise
            away_since = _wait_for_store(error, away_since, say)
        except KeyboardInterrupt:  # by a handler that is not ours, or one too many for ours
            interrupts.hear()
    if child is not None:
        child.wait()
    return _outcome(run)


def _wait_for_store(
    error: StoreUnreachable, since: float | None, say: Callable[[str], None]
) -> float:
    """A moment longer; returns since when. Raises the error when it is too long."""
    if since is None:
        say(f"waiting: {error.what}")
        since = time.monotonic()
    if time.monotonic() - since > _PATIENCE:
        raise error
    time.sleep(0.5)
    return since


def tell_events(
    stores: Stores, run_id: str, cursor: int, say: Callable[[str], None], timeout: float = 0.0
) -> int:
    """Say what happened since the cursor, waiting a little for it. Returns the next cursor."""
    events = stores.meta.wait_events(cursor, subject=f"run/{run_id}", timeout=timeout)
    for event in events:
        for line in lines_of(event):
            say(line)
    return events[-1].seq if events else cursor


def _interrupt(stores: Stores, run: Run, count: int, say: Callable[[str], None]) -> None:
    say("stopping: saving a checkpoint; Ctrl-C again kills" if count == 1 else "killing")
    with contextlib.suppress(Conflict):  # it ended at this moment
        control.stop(stores, run.id)
    if count > 1:
        control.kill(stores, run.id)


def is_orphan(stores: Stores, run: Run, child: control.Started | None) -> bool:
    """Whether nobody carries an unfinished run on: a controller that died is started again by its
    agent, and both are gone.

    child  its controller as this process started it; None: another process did
    """
    if child is not None and child.poll() is None:
        return False
    time.sleep(0.05)
    with stores.meta.read() as db:
        now_run = db.get_run(run.id)
        owner = control.owner(db.find_lease(f"run/{run.id}"), db.now())
        attempts = db.attempts(run.id)
    if now_run.state in ENDED or owner is not None:
        return False
    if attempts and attempts[-1].cause == "preempted":
        return True
    return not read_processes(stores.layout.runtime(f"run/{run.id}", create=False))


def _look_for_life(stores: Stores, run: Run, child: control.Started | None) -> None:
    """Say so when nobody carries it on."""
    if child is not None and is_orphan(stores, run, child):
        raise interrupted(stores, run, child.returncode)


def interrupted(stores: Stores, run: Run, code: int | None) -> DiskFull | RunFailed | RunStopped:
    """The error that says so, with what can be known of the cause."""
    with stores.meta.read() as db:
        now_run, attempts = db.get_run(run.id), db.attempts(run.id)
    if attempts and attempts[-1].cause == "preempted":
        return preempted(now_run)
    if shutil.disk_usage(stores.layout.root).free < _NO_ROOM:
        return DiskFull(
            f'run "{run.name}" was interrupted: the disk of {stores.layout.root} is full',
            "Free some room and run the script again; it goes on from the last checkpoint.",
            run=run.id,
        )
    return RunFailed(
        f'run "{run.name}" was interrupted: {_last_words(stores.layout.logs(run.id))}',
        "Run the script again; it goes on from the last checkpoint.",
        run=run.id,
        code_of_controller=code,
    )


def _last_words(logs: Path) -> str:
    """Why the controller gave up, if it could still say so."""
    path = logs / "controller.log"
    lines = path.read_text(errors="replace").strip().splitlines() if path.is_file() else []
    try:
        last = json.loads(lines[-1]) if lines else {}
    except json.JSONDecodeError:  # not its log: the end of a traceback
        return f"its controller failed with {lines[-1]}"
    if last.get("level") != "error":
        return "its controller and agent are gone"
    return str(last["message"]).split("\n")[0]


def _outcome(run: Run) -> Run:
    if run.state == "failed":
        raise from_dict(run.error or {"code": "run-failed", "what": "the run failed"})
    if run.state == "stopped":
        raise stopped(run)
    return run


def stopped(run: Run) -> RunStopped:
    on = "" if run.spec["controller"] is None else f", or: penstock runs resume {run.name}"
    return RunStopped(
        f'run "{run.name}" was stopped at step {run.step}',
        f"Run the script again to go on{on}",
        run=run.id,
        step=run.step,
    )


def preempted(run: Run) -> RunStopped:
    return RunStopped(
        f'run "{run.name}" was preempted (SIGTERM) and saved at step {run.step}',
        "Run the script again to go on; a detached run is adopted by penstock up.",
        run=run.id,
        step=run.step,
    )


def stop_early(stores: Stores, run: Run) -> BaseException:
    """Ctrl-C where nothing is followed, before or after: a controller that comes up late finds
    the run stopped. Returns what to raise: the Ctrl-C itself where there was nothing to stop."""
    try:
        return stopped(control.stop(stores, run.id))
    except (Conflict, NotFound):  # it ended, or its row was never committed
        return KeyboardInterrupt()


def tell_skipped(run: Run, say: Callable[[str], None]) -> None:
    """Steps that were left out are no error, and not what anybody wants."""
    if skipped := run.result.get("skipped"):
        steps = units.show_count(run.result["steps"], "step")
        say(f"{skipped:,} of {steps} were not taken: their gradients were unhealthy")


def lines_of(event: Event) -> list[str]:
    """An event as lines for people; none of those that only machines need."""
    if event.kind == "model.published":
        return [f"published {event.body['reference']}", *event.body["notes"]]
    if event.kind == "image.left-out":
        return [
            f"not preloaded: {each}, because {why}" for each, why in event.body["modules"].items()
        ]
    line = _line_of(event)
    return [] if line is None else [line]


def _line_of(event: Event) -> str | None:
    body: dict[str, Any] = event.body
    match event.kind:
        case "gang.started":
            pids = " ".join(str(pid) for pid in body["pids"].values())
            ranks = units.show_count(len(body["pids"]), "rank")
            return f"attempt {body['attempt']}: {ranks}, pids {pids}"
        case "rank.died":
            how = body["signal"] or f"exit code {body['code']}"
            if body["signal"] is None and body["code"] is None:
                how = "the death of its image"  # which cannot tell any more how its children ended
            if body.get("oom"):
                how = "the kernel, which was out of memory"
            return f"rank {body['rank']} (pid {body['pid']}) died by {how}"
        case "rank.hung":
            return hang.said(body)
        case "rank.straggling":
            shown = ("rank", "part", "seconds", "others", "slowdown", "waited")
            return stragglers.said(**{name: body[name] for name in shown})
        case "attempt.ended" if "raised" in body:
            return f"{body['cause']}: {body['raised']}; trying again"
        case "window.left-out":
            where = f"to step {body['after']}" if body["after"] else "to the beginning"
            steps = f"{body['after'] + 1} to {body['until']}"
            since = f"unhealthy gradients since step {body['first']}"
            return f"{since}: going back {where}, and leaving out steps {steps}"
        case "gang.resized":
            why = f" after {body['failures']} failures" if body["failures"] else ""
            return f"{units.show_count(body['to'], 'rank')} instead of {body['from']}{why}"
        case "devices.queued":
            return f"waiting for {body['shown']}: {'; '.join(body['waits_for'])}"
        case "devices.granted" if body["waited"]:
            return f"got {', '.join(body['devices'])} after {body['waited']:.0f} s"
        case "devices.short":
            gpus = f"{units.show_count(len(body['gpus']), 'GPU')} ({', '.join(body['gpus'])})"
            return f"{gpus} for {body['ranks']} ranks: they compute on the CPU"
        case "places.waiting":
            return f"waiting for room for {body['shown']}; there is {body['there']}"
        case "node.lost":
            return f"lost {body['node']} at {body['host']}: {body['why']}"
        case "node.set-aside":
            return f"{body['host']} is set aside: {'; '.join(body['why'])}"
        case "agent.died":
            return "the agent died; starting another"
        case "controller.adopted":
            return "the controller died; another one took over"
        case "attempt.resumed":
            changed = "; ".join(body.get("changed", ()))
            tier = f", from {body['from']}" if body.get("from") in ("memory", "store") else ""
            more = f", with {changed}" if changed else ""
            return f"resumed at step {body['step']}{tier}{more}"
        case "weights.initialised":
            return f"begins with the weights of {body['from']}"
        case "data.checked" if body["violations"]:
            broken = units.show_count(len(body["violations"]), "expectation")
            aside = sum(body["aside"].values())
            more = f"; {units.show_count(aside, 'row')} set aside" if aside else ""
            return f"dataset {body['reference']} does not meet {broken}{more}"
        case "checkpoint.damaged":
            return f"{body.get('what', 'a checkpoint is damaged')}"
        case "checkpoint.failed":
            return f"checkpoint {body['step']} was not saved: {body['error']['what']}"
        case "checkpoint.delayed":
            return f"checkpoint {body['step']} waits on this disk: {body['error']['what']}"
        case "checkpoints.awaited":
            steps = ", ".join(str(step) for step in body["steps"])
            return f"waiting until the object store has checkpoint {steps}"
        case "checkpoint.torn":
            what = f"{body['tensor']} changed outside of optimizer.step() (rank {body['rank']})"
            return (
                f"{what}: checkpoint {body['step']} is left out, and later ones are copied at once"
            )
        case "checkpoint.memory-degraded":
            wanted = units.show_bytes(body["wanted"])
            if not body.get("disk", True):
                more = "a death costs the steps since the last checkpoint"
                return f"no room in memory for states that stay ({wanted}); {more}"
            return f"no room in memory for checkpoints ({wanted}); they go through the disk"
        case "checkpoint.uncopied":
            wanted = units.show_bytes(body["wanted"])
            more = "a lost node costs the steps since the last checkpoint"
            return f"no room in a neighbour's memory for a copy ({wanted}); {more}"
        case "run.preempted":
            return "preempted: saved, to be gone on with"
        case "run.interrupted":
            return f"interrupted: {body['why']}"
        case "run.finished" | "run.stopped" | "run.failed":
            return event.kind.replace(".", " ")
    return None
