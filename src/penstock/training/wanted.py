"""What a call asks for, in the form in which a run's row keeps it: code, config, ranks, threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import unwrap
from pathlib import Path
from typing import Any

from penstock.base import process, units
from penstock.base.errors import BadInput, CannotTravel
from penstock.jobs import environment
from penstock.jobs.backends.engines import is_here
from penstock.jobs.claiming import wish
from penstock.jobs.devices import found_here
from penstock.jobs.source import (
    CodeIdentity,
    Entry,
    git_commit,
    identity,
    locate,
    refs,
    script_identity,
)
from penstock.jobs.source import place as source_place
from penstock.jobs.source import snapshot as take_snapshot
from penstock.jobs.stores import Stores
from penstock.records import Run
from penstock.records.references import check_name
from penstock.training import configuring, elastic, initial, preloads


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
        return compared(self.spec)

    def on(self, device: str, stores: Stores) -> Wanted:
        """On these devices. Raises BadInput where there can never be so many; under a launcher it
        is the launcher's to deal them out."""
        if device not in ("auto", "cpu", "cuda"):
            raise BadInput(f'device="{device}" is none', 'Give "auto", "cpu" or "cuda".')
        if self.spec["launcher"] is None and is_here(stores.settings):
            there = found_here(stores.settings.devices)
            wish(device, self.spec["world_size"], 1, there, cores=False)
        threading = threading_of(self.spec["threads"], device)
        return replace(self, spec={**self.spec, **threading, "device": device})

    def beginning(self, record: initial.Record | None) -> Wanted:
        """With the weights that a new run begins with."""
        return replace(self, spec={**self.spec, "init_from": record})

    def going_on_from(self, last: Run) -> Wanted:
        """Threads that nobody asked for stay: another number of them adds in another order."""
        if self.threads_given or "threads" not in last.spec:
            return self
        kept = threading_of(last.spec["threads"], self.spec.get("device", "auto"))
        return replace(self, spec={**self.spec, **kept})


def compared(spec: dict[str, Any]) -> dict[str, Any]:
    """What of a spec counts as config."""
    keys = ("config", "world_size", "seed", "every", "threads")
    init = spec.get("init_from") or {}
    found = {**{key: spec.get(key) for key in keys}, "init_from": init.get("asked")}
    if found["every"] == "30s":  # the default once: to say nothing is no change
        found["every"] = "auto"
    if (sizes := spec.get("elastic")) is not None:  # how many there are just now does not count
        found["world_size"] = [sizes["low"], sizes["high"]]
    return found


@dataclass(frozen=True, slots=True)
class Kept:
    """source  digest of the snapshot; "": there is no file
    git     the commit, see `git_commit`
    """

    source: str
    git: str | None


@dataclass(frozen=True, slots=True)
class Subject:
    """What runs: where other processes find it, and what its result depends on.

    travels  whether another process can run it; a function of a notebook and a whole script do not
    kept     its source, where that was kept already: on another machine than this, it may be
    """

    entry: Entry
    code: CodeIdentity
    travels: bool = True
    kept: Kept | None = None

    @property
    def name(self) -> str:
        return self.entry.qualname or self.entry.module


def subject_of(function: Callable[..., None]) -> Subject:
    """Of a training function. Raises CannotTravel."""
    entry = locate(function, here=True)
    return Subject(entry, identity(function), entry.in_file)


def script_subject() -> Subject:
    """Of the running script as a whole. A notebook has no source that could be kept."""
    main = sys.modules["__main__"]
    code = script_identity(main)
    file = getattr(main, "__file__", None)
    if file is None or not code.parts:
        return Subject(Entry("notebook", "", Path.cwd(), in_file=False), code, False)
    name, root = source_place(main, Path(file).resolve())
    return Subject(Entry(name, "", root), code, False)


def loop_subject(loop: Callable[..., Any]) -> Subject:
    """Of a function that somebody else brings to its processes: a nested one, a partial or an
    object that is called will do as well. Raises CannotTravel."""
    named: Any = loop
    while isinstance(named, partial):
        named = named.func
    if not hasattr(named, "__qualname__"):
        named = type(named)
    module = sys.modules.get(named.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not Path(file).is_file():
        entry = Entry(named.__module__, named.__qualname__, Path.cwd(), in_file=False)
        return Subject(entry, identity(loop), False)
    code = getattr(unwrap(named), "__code__", None)
    if code is not None and named.__module__ == "__main__" and code.co_filename != file:
        _refuse_anothers(named.__qualname__, code.co_filename, file)
    name, root = source_place(module, Path(file).resolve())
    return Subject(Entry(name, named.__qualname__, root), identity(loop), False)


def _refuse_anothers(name: str, source: str, script: str) -> None:
    if Path(source).resolve() != Path(script).resolve():
        raise CannotTravel(
            f'"{name}" is of {source}, and this process runs {script}: what it refers to cannot '
            "be followed from here",
            "Do this in the script that defines it, or define it in a module that is imported.",
            function=name,
        )


def keep(subject: Subject, stores: Stores) -> Kept:
    """Take the source snapshot. Raises BadInput, and what the blob store raises."""
    entry = subject.entry
    with ThreadPoolExecutor(1) as beside:
        commit = beside.submit(git_commit, entry.root)
        source = take_snapshot(entry.root, stores.blobs, entry=entry) if entry.in_file else ""
    return Kept(source, commit.result())


@dataclass(frozen=True, slots=True)
class Place:
    """Where the ranks are to be.

    workers   how many; 0: one, in this process
    launcher  whose processes the ranks are: "torchrun", "srun", "ray-train"; None: Penstock's own
    here      how many of them share this machine's cores
    set       threads that each has already; None: the cores, shared out
    elastic   how many they may become; None: always as many
    """

    workers: int
    launcher: str | None = None
    here: int | None = None
    set: int | None = None
    elastic: elastic.Sizes | None = None

    @classmethod
    def of(cls, workers: int | tuple[int, int]) -> Place:
        """What `workers=` says. Raises BadInput."""
        sizes = elastic.read(workers)
        return cls(workers if isinstance(workers, int) else workers[1], elastic=sizes)

    @property
    def in_script(self) -> bool:
        return self.workers == 0 or self.launcher is not None

    def threads(self, asked: int | None) -> int:
        """Of each rank."""
        cores, ranks = len(os.sched_getaffinity(0)), self.here or self.workers
        torchrun = self.launcher == "torchrun"
        return environment.threads_of(asked or self.set, ranks, cores, os.environ, torchrun)


def wanted_of(
    stores: Stores,
    subject: Subject,
    config: Any,
    place: Place,
    *,
    name: str | None,
    detach: bool,
    checkpoint_every: int | str,
    seed: int,
    threads: int | None,
    preload: Sequence[str] = (),
) -> Wanted:
    """Takes the source snapshot, where that was not done. Raises BadInput, CannotTravel."""
    entry = subject.entry
    _check_place(place, detach)
    if not subject.travels and not place.in_script:
        raise CannotTravel(
            f'"{entry.qualname}" was not defined in a file, so no rank can import it',
            "Define it at the top level of a .py file and run that file, or train in this "
            "process: workers=0.",
        )
    kept = subject.kept or keep(subject, stores)
    by_steps = isinstance(checkpoint_every, int)
    if by_steps and int(checkpoint_every) < 1:
        raise BadInput(f"checkpoint_every={checkpoint_every} never saves", "Give 1 or more steps.")
    spec = {
        "entry": entry.text if entry.qualname else entry.module,
        "travels": subject.travels,
        "config": configuring.pack(config, place.workers == 0),
        "world_size": max(1, place.workers),
        "workers": place.workers,
        "elastic": None if place.elastic is None else asdict(place.elastic),
        "launcher": place.launcher,
        "seed": seed,
        "every": checkpoint_every,
        "every_steps": int(checkpoint_every) if by_steps else None,
        "every_seconds": _seconds(checkpoint_every),
        **threading_of(place.threads(threads), "auto"),
        "device": "auto",
        "preload": ["penstock.training.preload", *preloads.checked(preload, entry.root)],
        "rank_env": {},
        "sidecars": {
            "checkpoint": {
                "entry": "penstock.training.sidecar:main",
                "payload": {"blobs": stores.blobs.url, "home": str(stores.layout.root)},
            }
        },
        "cwd": str(Path.cwd()),
        "client": None if detach else str(process.Identity.mine()),
        "parts": subject.code.parts,
        "git": kept.git,
    }
    name = check_name(name or subject.name, "run name")
    known = refs(kept.source, stores.blobs) if kept.source else []
    return Wanted(name, spec, subject.code, kept.source, known, detach, threads is not None)


def _seconds(checkpoint_every: int | str) -> float | None:
    """None where steps decide, or the run itself."""
    if isinstance(checkpoint_every, int) or checkpoint_every == "auto":
        return None
    return units.seconds(checkpoint_every)


def threading_of(threads: int, device: str) -> dict[str, Any]:
    """What of a spec follows from the threads of each rank and the devices asked for."""
    found = environment.of_ranks(threads, device, os.environ)
    return {"threads": threads, "image_env": found}


def _check_place(place: Place, detach: bool) -> None:
    workers, cores = place.workers, len(os.sched_getaffinity(0))
    if place.launcher is not None:
        if detach:
            raise BadInput(
                f"the ranks are processes of {place.launcher}, and cannot be detached",
                "Leave detach out, or run the script without a launcher.",
            )
        return
    if workers < 0 or workers > 4 * cores:
        raise BadInput(
            f"workers={workers} on a machine with {cores} cores",
            f"Give 0 (in this process) to {4 * cores}.",
            workers=workers,
            cores=cores,
        )
    if workers == 0 and detach:
        raise BadInput("workers=0 runs in this process and cannot be detached", "Give workers=1.")
