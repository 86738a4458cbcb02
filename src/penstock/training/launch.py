"""`train`: start a run, go on with it, or give what it gave. The script is only a client."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from penstock.base import ids, process, units
from penstock.base.errors import BadInput, CannotTravel, LeaseHeld, NotFound, Refused
from penstock.base.interrupts import Interrupts, counted
from penstock.jobs import control
from penstock.jobs.source import CodeIdentity, difference, git_commit, identity, locate, refs
from penstock.jobs.source import snapshot as take_snapshot
from penstock.jobs.stores import Stores, pinned
from penstock.meta import Writer
from penstock.records import Run
from penstock.records.references import check_name
from penstock.records.runs import ENDED
from penstock.training import configuring, controller, early, elastic, initial
from penstock.training.follow import follow, stop_early, tell_skipped
from penstock.training.watching import OnProgress

OnChange = Literal["continue", "refuse", "fork"]
_DEFAULT_SAVE = "30s"


@dataclass(frozen=True)
class Trained:
    """What a run gave.

    model      reference of the (last) published model version, "NAME@VERSION"; None without one
    reused     nothing ran: this very run had finished before
    why        one sentence
    changed    what differs from the attempt before, a line each
    """

    run: Run
    reused: bool
    why: str
    changed: list[str] = field(default_factory=list)

    @property
    def model(self) -> str | None:
        found = self.run.result.get("model")
        return str(found) if found else None

    @property
    def reference(self) -> str:
        """The model's reference. Raises NotFound when the run published none."""
        if self.model is None:
            raise NotFound(
                f'run "{self.run.name}" published no model',
                "Call run.publish(NAME, model, example=…) in the training function.",
            )
        return self.model


@dataclass(frozen=True)
class Wanted:
    """What the call asks for, in the form in which a run's row keeps it."""

    name: str
    spec: dict[str, Any]
    code: CodeIdentity
    source: str
    source_refs: list[str]
    detached: bool
    threads_given: bool

    def compared(self) -> dict[str, Any]:
        return _compared(self.spec)

    def beginning(self, record: initial.Record | None) -> Wanted:
        """With the weights that a new run begins with."""
        return replace(self, spec={**self.spec, "init_from": record})

    def going_on_from(self, last: Run) -> Wanted:
        """Threads that nobody asked for stay: another number of them adds in another order."""
        if self.threads_given or "threads" not in last.spec:
            return self
        return replace(self, spec={**self.spec, **_threading(last.spec["threads"])})


def _compared(spec: dict[str, Any]) -> dict[str, Any]:
    """What of a spec counts as config."""
    keys = ("config", "world_size", "seed", "every", "threads")
    init = spec.get("init_from") or {}
    found = {**{key: spec.get(key) for key in keys}, "init_from": init.get("asked")}
    if (sizes := spec.get("elastic")) is not None:  # how many there are just now does not count
        found["world_size"] = [sizes["low"], sizes["high"]]
    return found


def train(
    stores: Stores,
    function: Callable[..., None],
    config: Any = None,
    *,
    name: str | None = None,
    workers: int | tuple[int, int] = 1,
    detach: bool = False,
    fresh: bool = False,
    on_change: OnChange = "continue",
    checkpoint_every: int | str = _DEFAULT_SAVE,
    seed: int = 0,
    threads: int | None = None,
    init_from: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    on_progress: OnProgress | None = None,
) -> Trained:
    """Train under a name; survives the death of any process, and of the machine.

    function          fit(run, config), or fit(run) without a config; at the top level of a file
    config            dataclass, pydantic model, dict, or DictConfig of OmegaConf
    name              of the run; default: the function's name
    workers           ranks; 0: in this process; (low, high): as many as that, and others while it
                      goes on, see `elastic`
    detach            return at once; the run goes on without the script
    fresh             a new run, whatever there is under this name
    on_change         an unfinished run whose code or config changed: "continue" says and records
                      the difference, "refuse" raises Refused, "fork" starts a new run
    checkpoint_every  steps (a number) or seconds (text such as "30s")
    seed              of initial weights, order of the data, and random numbers
    threads           of each rank; default: the cores, shared out
    init_from         a new run's tracked models begin with these weights: RUN[@STEP or @best], or a
                      model NAME[@VERSION-OR-ALIAS]; optimiser, step and cursor begin anew
    say               gets one line at a time, for people
    on_progress       called with `Progress` while ranks of an attached run go on

    Raises UserCodeFailed (the function's own traceback in its facts), RunFailed, RunStopped,
    LeaseHeld (the run is going on elsewhere), Refused, CannotTravel, BadInput; NotFound and Damaged
    where `init_from` names what is not there or not whole.
    """
    run: Run | None = None
    counting = ExitStack()  # from the first row on, an exception at any line could leave it behind
    try:
        with pinned(stores.meta):
            wanted = ask(
                stores, function, config, name, workers, detach, checkpoint_every, seed, threads
            )
            with stores.meta.read() as db:
                last = None if fresh else db.newest_run(wanted.name, "train")
            wanted, notes = _with_weights(stores, wanted, init_from, last)
            interrupts = counting.enter_context(counted())
            with stores.meta.write() as tx:
                run, why, changed, reused = _decide(tx, wanted, fresh, on_change, stores)
        if workers == 0:
            counting.close()  # the function runs here: Ctrl-C raises in it
        if reused:
            say(f"reused run {run.name}, because {why}")
            return Trained(run, True, why)
        say(f"running {run.name}, because {why}")
        for line in changed:
            say(f"  changed: {line}")
        for line in notes:
            say(f"init_from: {line}")
        if not run.source:
            say("its function is in no file: no other process can go on with this run")
        ended = _carry_out(stores, run, workers, detach, say, on_progress, interrupts)
        tell_skipped(ended, say)
        return Trained(ended, False, why, changed)
    except KeyboardInterrupt:
        if run is None or run.state in ENDED:
            raise
        raise stop_early(stores, run) from None
    finally:
        counting.close()


def _carry_out(
    stores: Stores,
    run: Run,
    workers: int | tuple[int, int],
    detach: bool,
    say: Callable[[str], None],
    on_progress: OnProgress | None,
    interrupts: Interrupts,
) -> Run:
    if workers == 0:
        if interrupts.count:
            raise KeyboardInterrupt
        from penstock.training.inline import Inline

        early.note(stores.layout, None)
        with pinned(stores.meta):
            return Inline(stores, run, say).run()
    with stores.meta.read() as db:
        cursor = db.last_event()
        going_on = control.owner(db.find_lease(f"run/{run.id}"), db.now()) is not None
    child = None if going_on else early.start(stores, run, alone=detach)
    if detach:
        if interrupts.count:
            raise KeyboardInterrupt
        say(f"detached; follow it: penstock runs logs -f {run.name}")
        return run
    if on_progress is not None:
        say(f"what its ranks print: penstock runs logs -f {run.name}")
    return follow(stores, run, child, cursor, say, on_progress, interrupts)


def ask(
    stores: Stores,
    function: Callable[..., None],
    config: Any,
    name: str | None,
    workers: int | tuple[int, int],
    detach: bool,
    checkpoint_every: int | str,
    seed: int,
    threads: int | None,
) -> Wanted:
    """What a call asks for. Raises CannotTravel, BadInput."""
    cores = len(os.sched_getaffinity(0))
    sizes = elastic.read(workers)
    workers = workers if isinstance(workers, int) else workers[1]
    _check_workers(workers, cores, detach)
    here = workers == 0
    entry = locate(function, here=True)
    if not entry.in_file and not here:
        raise CannotTravel(
            f'"{entry.qualname}" was not defined in a file, so no rank can import it',
            "Define it at the top level of a .py file and run that file, or train in this "
            "process: workers=0.",
        )
    code = identity(function)
    source = take_snapshot(entry.root, stores.blobs, entry=entry) if entry.in_file else ""
    by_steps = isinstance(checkpoint_every, int)
    if by_steps and int(checkpoint_every) < 1:
        raise BadInput(f"checkpoint_every={checkpoint_every} never saves", "Give 1 or more steps.")
    world = max(1, workers)
    spec = {
        "entry": entry.text,
        "config": configuring.pack(config, here),
        "world_size": world,
        "workers": workers,
        "elastic": None if sizes is None else asdict(sizes),
        "seed": seed,
        "every": checkpoint_every,
        "every_steps": int(checkpoint_every) if by_steps else None,
        "every_seconds": None if by_steps else units.seconds(checkpoint_every),
        **_threading(threads or max(1, cores // world)),
        "preload": ["penstock.training.preload"],
        "rank_env": {},
        "sidecars": {
            "checkpoint": {
                "entry": "penstock.training.sidecar:main",
                "payload": {"blobs": stores.blobs.url},
            }
        },
        "cwd": str(Path.cwd()),
        "client": None if detach else str(process.Identity.mine()),
        "parts": code.parts,
        "git": git_commit(entry.root),
    }
    name = check_name(name or entry.qualname, "run name")
    known = refs(source, stores.blobs) if source else []
    return Wanted(name, spec, code, source, known, detach, threads is not None)


def _with_weights(
    stores: Stores, wanted: Wanted, init_from: str | None, last: Run | None
) -> tuple[Wanted, list[str]]:
    """Where the weights come from, and what is to be said of it. Resolved once: a run that was
    asked the same, and goes on or is only returned, keeps what it got."""
    if init_from is None:
        return wanted.beginning(None), []
    if last is not None and initial.asked(last) == init_from:
        same = wanted.beginning(last.spec["init_from"])
        if last.state != "finished" or not changes_of(last, same.going_on_from(last)):
            return same, []
    record, notes = initial.resolve(stores, init_from)
    return wanted.beginning(record), notes


def _threading(threads: int) -> dict[str, Any]:
    """What of a spec follows from the threads of each rank."""
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONHASHSEED": "0",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # an image has one thread
    }
    return {"threads": threads, "image_env": environment}


def _check_workers(workers: int, cores: int, detach: bool) -> None:
    if workers < 0 or workers > 4 * cores:
        raise BadInput(
            f"workers={workers} on a machine with {cores} cores",
            f"Give 0 (in this process) to {4 * cores}.",
            workers=workers,
            cores=cores,
        )
    if workers == 0 and detach:
        raise BadInput("workers=0 runs in this process and cannot be detached", "Give workers=1.")


def _decide(
    tx: Writer, wanted: Wanted, fresh: bool, on_change: OnChange, stores: Stores
) -> tuple[Run, str, list[str], bool]:
    """(run, why, what changed, nothing to do)."""
    last = None if fresh else tx.newest_run(wanted.name, "train")
    if last is None:
        why = "fresh=True" if fresh else f'there is no run named "{wanted.name}" yet'
        return create(tx, wanted, stores), why, [], False
    wanted = wanted.going_on_from(last)
    changed = changes_of(last, wanted)
    if last.state == "finished":
        if not changed:
            return last, "it finished, and code and config are unchanged", [], True
        return create(tx, wanted, stores), "it finished, and then changed", changed, False
    if changed and on_change == "refuse":
        raise Refused(
            f'run "{last.name}" is unfinished and its code or config changed: '
            + "; ".join(changed[:5]),
            'Undo the change, or pass on_change="continue" or "fork".',
            changed=changed,
        )
    if changed and on_change == "fork":
        return create(tx, wanted, stores), "it is unfinished, and changed", changed, False
    return go_on(tx, last, wanted, changed, stores)


def changes_of(last: Run, wanted: Wanted) -> list[str]:
    """What of code and config differs from a run, a line each."""
    lines = difference(last.spec.get("parts", {}), wanted.spec["parts"])
    return lines + configuring.changes(_compared(last.spec), wanted.compared())


def create(tx: Writer, wanted: Wanted, stores: Stores) -> Run:
    """A new run's row, with what it refers to."""
    run = Run(
        id=ids.new_id("run"),
        name=wanted.name,
        work="train",
        state="pending",
        spec=wanted.spec,
        code=wanted.code.digest,
        source=wanted.source,
        detached=wanted.detached,
        created_at=tx.now(),
    )
    run = replace(run, spec=_with_controller(run, stores))
    tx.add_run(run, wanted.source_refs)
    tx.event(f"run/{run.id}", "run.created", {"name": run.name, "code": run.code})
    return run


def go_on(
    tx: Writer, last: Run, wanted: Wanted, changed: list[str], stores: Stores
) -> tuple[Run, str, list[str], bool]:
    """The row of an unfinished run as its next attempt wants it; as `_decide` gives. Raises
    LeaseHeld."""
    owner = control.owner(tx.find_lease(f"run/{last.id}"), tx.now())
    if owner is not None:
        if last.detached and not changed:
            return last, f"it goes on already (pid {owner.pid}); following it", [], False
        raise LeaseHeld(
            f'run "{last.name}" is going on already (pid {owner.pid} on {owner.host})',
            f"Wait, or stop it: penstock runs stop {last.name}",
            pid=owner.pid,
            run=last.id,
        )
    began = initial.carried(last, wanted.spec["init_from"], begun=bool(tx.checkpoints(last.id)))
    spec = _with_controller(replace(last, spec={**wanted.spec, **began}), stores)
    run = tx.change_run(
        last.id,
        state="pending",
        spec=spec,
        code=wanted.code.digest,
        source=wanted.source,
        detached=wanted.detached,
        error=None,
        ended_at=None,
    )
    tx.event(f"run/{run.id}", "run.continued", {"changed": changed, "was": last.state})
    tx.refer(f"run/{run.id}", wanted.source_refs)
    was = last.state if last.state in ENDED else "interrupted"
    return run, f"it is unfinished ({was} at step {last.step})", changed, False


def _with_controller(run: Run, stores: Stores) -> dict[str, Any]:
    """The spec with the command that starts this run's controller; none for workers=0."""
    if run.spec["workers"] == 0:
        return {**run.spec, "controller": None}
    return {**run.spec, "controller": controller.command(str(stores.layout.root), run.id)}
