"""The map shape: leased units, executed at least once, their effect committed exactly once.

The controller runs in a thread-free loop inside the caller's process; workers are forked from an
image by an agent, as ranks are. A worker that dies is replaced and its units are handed out again;
when the caller dies its workers die too, and the same call, made again, runs only what is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from penstock.base import ids, process
from penstock.base.errors import BadInput, RunFailed, from_dict
from penstock.base.hashing import digest_json
from penstock.base.interrupts import counted
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.jobs import environment
from penstock.jobs.backends.engines import is_here
from penstock.jobs.controller import Controller
from penstock.jobs.source import import_paths, materialise
from penstock.jobs.stores import Stores, pinned
from penstock.jobs.work import Call, Control
from penstock.meta import Writer
from penstock.records import Run

Progress = Callable[[int, int], None]
OnDone = Callable[[Mapping[str, Mapping[str, Any]]], None]
_ENTRY = "penstock.jobs.worker:main"
_MEMORIES, _MEMORY = "memories", "unit"


@dataclass(frozen=True)
class UnitContext:
    """What a unit's function may use. shared: equal for all units; rank: of the worker."""

    blobs: Blobs
    layout: Layout
    shared: dict[str, Any]
    rank: int


@dataclass(frozen=True)
class MapResult:
    """results: unit key -> what its function gave; repeated: executions beyond the first."""

    run_id: str
    results: dict[str, dict[str, Any]]
    repeated: int


def run_map(
    stores: Stores,
    *,
    name: str,
    work: str,
    function: str,
    units: Mapping[str, Mapping[str, Any]],
    workers: int,
    shared: Mapping[str, Any],
    source: str = "",
    on_progress: Progress | None = None,
    on_done: OnDone | None = None,
) -> MapResult:
    """Execute `function(payload, context)` for every unit and return all results.

    function     "module:name"; its result is JSON-able, its "refs" list blobs that it wrote, its
                 "memories" what the store remembers in the same transaction: {"key", "value"}
    units        key -> payload
    workers      processes; 0: in this one
    source       digest of a source snapshot that `function` is imported from
    on_progress  called with (done, total)
    on_done      called with what has just been committed: unit key -> result

    An unfinished map of the same name and content is continued. Raises what a unit raised
    (UserCodeFailed with its traceback), RunFailed, LeaseHeld.
    """
    if not units:
        raise BadInput(f"{name}: there is nothing to do", "Is the split empty?")
    run = _find_or_create(stores, name, work, function, units, workers, shared, source)
    job = MapWork(run, on_progress, on_done)
    with pinned(stores.meta):
        if workers == 0:
            from penstock.jobs.worker import inline

            inline(stores, run, job)
        else:
            _supervise(stores, run, job)
    return _collected(stores, run.id)


def _supervise(stores: Stores, run: Run, job: MapWork) -> None:
    with counted() as interrupts:
        ended = Controller(stores, run.id, job, interrupts=interrupts).run()
        if interrupts.count:  # pressed when it was over
            raise KeyboardInterrupt
    if ended.state == "failed" and ended.error is not None:
        raise from_dict(ended.error)
    if ended.state != "finished":
        raise RunFailed(f"{run.name} was {ended.state}", "Run it again; it continues.")


def finish(tx: Writer, run_id: str, done: Mapping[str, Mapping[str, Any]]) -> None:
    """Commit results: the units, the blobs that they need, and what is remembered of them."""
    if not done:
        return
    results = {key: {k: v for k, v in each.items() if k != _MEMORIES} for key, each in done.items()}
    tx.finish_units(run_id, results)  # whatever digest stands in a result is referred to
    for result in done.values():
        for memory in result.get(_MEMORIES, ()):
            tx.remember(memory["key"], _MEMORY, memory["value"], ())


def _collected(stores: Stores, run_id: str) -> MapResult:
    with stores.meta.read() as db:
        done = db.units(run_id)
    results = {unit.key: unit.result or {} for unit in done}
    return MapResult(run_id, results, sum(max(0, unit.tries - 1) for unit in done))


def _find_or_create(
    stores: Stores,
    name: str,
    work: str,
    function: str,
    units: Mapping[str, Mapping[str, Any]],
    workers: int,
    shared: Mapping[str, Any],
    source: str,
) -> Run:
    content = digest_json([function, {k: dict(v) for k, v in units.items()}, dict(shared), source])
    spec = {
        "content": content,
        "function": function,
        "shared": dict(shared),
        "steps": len(units),
        "workers": workers,
        **_processes(stores, function, max(1, workers)),
    }
    with stores.meta.write() as tx:
        last = tx.newest_run(name, work)
        if last and last.state != "finished" and last.spec.get("content") == content:
            # Raises where another call, of this process too, has it: its row is no one else's.
            tx.release_lease(tx.take_lease(f"run/{last.id}", str(process.Identity.mine()), 1.0))
            if not tx.unit_counts(last.id):  # it was let go of meanwhile
                tx.add_units(last.id, units)
            return tx.change_run(last.id, state="pending", spec=spec, error=None, ended_at=None)
        run = Run(ids.new_id("map"), name, work, "pending", spec, source=source)
        tx.add_run(run)
        tx.event(f"run/{run.id}", "run.created", {"name": name, "units": len(units)})
        tx.add_units(run.id, units)
        return run


def _processes(stores: Stores, function: str, workers: int) -> dict[str, Any]:
    """The part of the spec that agents and images read."""
    module = function.partition(":")[0]
    cores = len(os.sched_getaffinity(0)) if is_here(stores.settings) else 1  # elsewhere: of each
    threads = environment.threads_of(None, workers, cores, os.environ)
    own = [module] if module.startswith("penstock.") else []
    return {
        "world_size": workers,
        "elastic": {"low": 1, "high": workers},
        "threads": threads,
        "preload": ["penstock.jobs.worker", *own],
        "image_env": environment.of_map_workers(threads, os.environ),
        "rank_env": {},
        "sidecars": {},
        "cwd": str(Path.cwd()),
        "client": str(process.Identity.mine()),
        "controller": None,
    }


class MapWork:
    """A map's contents for its controller. Called by one thread."""

    shape: Literal["gang", "map"] = "map"
    entry = _ENTRY

    def __init__(
        self, run: Run, on_progress: Progress | None, on_done: OnDone | None = None
    ) -> None:
        self._run = run
        self._on_progress = on_progress
        self._on_done = on_done
        self._total = int(run.spec["steps"])
        self._done = 0
        self._given: dict[int, set[str]] = {}  # worker -> keys that it has
        self._waiting: list[tuple[Call, int]] = []
        self._draining = False

    def open(self, control: Control) -> None:
        self._control = control
        self._paths: list[str] = []
        if self._run.source:
            stores = control.stores
            folder = materialise(self._run.source, stores.blobs, stores.layout.sources)
            found = import_paths(self._run.source, stores.blobs, folder)
            self._paths = [str(path) for path in found]
        self._count()

    def resize(self, _: dict[str, Any], room: int | None) -> str | None:
        return None

    def start(self, failures: int, room: int | None) -> dict[str, Any]:
        self._given, self._waiting = {}, []
        control = self._control

        def change(tx: Writer) -> None:
            leased = [unit.key for unit in tx.units(control.run_id, ("leased",))]
            tx.give_back_units(control.run_id, leased)

        control.commit(change)
        return {
            "run_id": control.run_id,
            "function": self._run.spec["function"],
            "shared": self._run.spec["shared"],
            "source": self._run.source,
            "paths": self._paths,
            "home": str(control.stores.layout.root),
            "blobs": control.stores.blobs.url,
        }

    def committed(self) -> int:
        return self._done

    def on_call(self, call: Call) -> dict[str, Any] | None:
        """The one question, "exchange": results in, new units out, in one transaction."""
        done: dict[str, dict[str, Any]] = call.payload["done"]
        control = self._control

        def change(tx: Writer) -> list[dict[str, Any]]:
            finish(tx, control.run_id, done)
            if self._draining:
                return []
            given = tx.lease_units(control.run_id, control.generation, call.payload["want"])
            return [{"key": unit.key, "payload": unit.payload} for unit in given]

        units = control.commit(change)
        self._given[call.rank] = {unit["key"] for unit in units}
        if done:
            self.gave(done)
            self._count()
            self._answer_waiting()
        if self._draining and self._done < self._total:
            return {"units": [], "drained": True}
        if not units and self._done < self._total:
            self._waiting.append((call, call.payload["want"]))
            return None
        return {"units": units}

    def _answer_waiting(self) -> None:
        """Who found nothing to do is told when all is done, or gets what came back."""
        waiting, self._waiting = self._waiting, []
        for call, want in waiting:
            answer = self.on_call(Call(call.rank, call.id, call.kind, {"done": {}, "want": want}))
            if answer is not None:
                self._control.reply(call, answer)

    def _count(self) -> None:
        with self._control.stores.meta.read() as db:
            self.told(db.unit_counts(self._control.run_id).get("done", 0))

    def gave(self, done: Mapping[str, Mapping[str, Any]]) -> None:
        """These results have just been committed."""
        if self._on_done is not None and done:
            self._on_done(done)

    def told(self, done: int) -> None:
        """How many units are done now."""
        self._done = done
        if self._on_progress is not None:
            self._on_progress(done, self._total)

    def on_tell(self, rank: int, kind: str, payload: dict[str, Any]) -> None:
        if kind != "died":
            return
        keys = sorted(self._given.pop(rank, set()))
        run_id = self._control.run_id
        self._control.commit(lambda tx: tx.give_back_units(run_id, keys))
        self._waiting = [each for each in self._waiting if each[0].rank != rank]
        self._answer_waiting()

    def kept(self) -> int:
        return 0

    def on_kept(self, gang: int, step: int, world_size: int) -> None:
        """Workers of a map keep no state."""

    def on_handed(self, rank: int, step: int) -> None:
        """Maps hand nothing to sidecars."""

    def on_sidecar(self, name: str, body: dict[str, Any]) -> None:
        """Maps have none."""

    def tick(self, steps: list[int]) -> dict[str, Any] | None:
        return None

    def drain(self) -> None:
        self._draining = True
        self._answer_waiting()

    def finish(self, results: dict[int, dict[str, Any]]) -> dict[str, Any]:
        return {"units": self._done, "ended": time.time()}

    def waits(self, grace: float | None) -> bool:
        return False

    def close(self) -> None:
        """Maps keep nothing open."""
