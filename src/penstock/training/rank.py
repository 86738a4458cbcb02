"""The life of a rank: join, load the function from the snapshot, run it, say how it ended."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from penstock.base.errors import (
    Damaged,
    OutOfMemory,
    PenstockError,
    Unavailable,
    UserCodeFailed,
)
from penstock.base.layout import Layout
from penstock.blobs import open_blobs
from penstock.jobs import compiled, stacks
from penstock.jobs.decide import DAMAGED
from penstock.jobs.link import AgentLink, Link
from penstock.jobs.source import import_paths, load, materialise
from penstock.jobs.wire import Channel
from penstock.signals import Emitter
from penstock.training import group, randomness
from penstock.training.configuring import unpack
from penstock.training.run import Drained, Run


def main(channel: Channel, fds: list[int], payload: dict[str, Any]) -> None:
    """The entry that the image calls."""
    link = AgentLink(channel, fds, payload)
    stacks.register(Path(payload["stacks"]))
    _stay_on(payload.get("cores", []), *link.local)
    listener = fds[1] if link.rank == 0 else None
    try:
        group.join(link, payload["rendezvous"], listener)
        result = execute(link, payload)
        group.leave(link.world_size)
    except Drained:
        link.tell("drained", {})
    except PenstockError as error:
        if isinstance(error, Damaged) and "damage" in error.facts:  # of a checkpoint: fall back
            link.tell("damaged", {"error": error.as_dict()})
            sys.exit(DAMAGED)
        _show(error)
        link.tell("raised", {"step": _step_of(error), "error": error.as_dict()})
        sys.exit(1)
    else:
        link.tell("finished", result)


def _stay_on(cores: list[int], index: int, here: int) -> None:
    """This rank's share of the claimed cores, where any are, before it has a second thread."""
    if cores:
        share = len(cores) // here
        os.sched_setaffinity(0, cores[index * share : (index + 1) * share] or cores)


def execute(link: Link, payload: dict[str, Any], function: Any = None) -> dict[str, Any]:
    """Run the user's function with a Run. Used by ranks and, with workers=0, in the script.

    function  where this process has it already; default: imported from the snapshot

    Raises Drained, UserCodeFailed (from what the function raised), Damaged, BadInput, …
    """
    torch.set_num_threads(payload["threads"])
    layout = Layout(Path(payload["home"]))
    payload = _with_source(payload, layout)
    compiled.use(layout)
    emitter = Emitter(layout.signals(link.run_id), link.run_id, link.rank, link.generation)
    run: Run | None = None
    try:
        function = function or _import(payload)
        randomness.seed_all(payload["seed"])  # equal on all ranks: models begin equal
        run = Run(link, open_blobs(payload["blobs"]), layout, payload, emitter)
        config = unpack(payload["config"])
        _call(function, run, config, payload["paths"])
    finally:
        if run is not None:
            run.close()
        emitter.close()
    return result_of(run)


def _with_source(payload: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """Where the controller is elsewhere, the snapshot is laid out here, by whoever comes first."""
    if payload["paths"] is not None or not (source := payload["source"]):
        return {**payload, "paths": payload["paths"] or []}
    blobs = open_blobs(payload["blobs"])
    folder = materialise(source, blobs, layout.sources)
    return {**payload, "paths": [str(path) for path in import_paths(source, blobs, folder)]}


def result_of(run: Run) -> dict[str, Any]:
    """What a rank whose function returned tells of it."""
    return {"published": run.published, "step": run.global_step, "skipped": run.skipped}


def _import(payload: dict[str, Any]) -> Any:
    """The function, from the snapshot's folder and not from the working tree."""
    for folder in reversed(payload["paths"]):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    return load(payload["entry"])


def _call(function: Any, run: Run, config: Any, paths: list[str]) -> None:
    try:
        if config is None:
            function(run)
        else:
            function(run, config)
    except (Drained, Unavailable):
        raise
    except PenstockError as error:
        if isinstance(error, UserCodeFailed):
            raise
        error.facts.setdefault("traceback", _own_frames(error, paths))
        error.facts.update(rank=run.rank, step=run.global_step)
        raise
    except Exception as error:
        kind = OutOfMemory if is_out_of_memory(error) else UserCodeFailed
        raise _failed(kind, error, run, paths) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Python's MemoryError, or torch's; on the CPU that is a RuntimeError which only its words
    tell from others."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))


_FIXES = {
    UserCodeFailed: "Mend the function and run the script again: it continues from the last "
    "checkpoint.",
    OutOfMemory: "Make what a step holds smaller (more micro_batches, a smaller batch or model, "
    "fewer workers) and run the script again: it continues from the last checkpoint.",
}


def _failed(
    kind: type[UserCodeFailed], error: Exception, run: Run, paths: list[str]
) -> UserCodeFailed:
    """The user's exception as one of the family, its own traceback first."""
    rank, step = run.rank, run.global_step
    name = type(error).__name__
    return kind(
        f"{name}: {error} (rank {rank}, step {step})",
        _FIXES[kind],
        rank=rank,
        step=step,
        signature=f"{name}: {error}",
        traceback=_own_frames(error, paths),
    )


def _own_frames(error: BaseException, paths: list[str]) -> str:
    """The traceback from the user's first frame on; files of the snapshot under their own names."""
    frames = traceback.extract_tb(error.__traceback__)
    here = os.sep + "penstock" + os.sep + "training" + os.sep
    first = next((i for i, f in enumerate(frames) if here not in f.filename), 0)
    lines = traceback.format_list(frames[first:])
    for folder in sorted(paths, key=len, reverse=True):  # the innermost folder names a file best
        lines = [line.replace(f'File "{folder}{os.sep}', 'File "', 1) for line in lines]
    last = traceback.format_exception_only(type(error), error)
    return "Traceback (most recent call last):\n" + "".join(lines + last)


def _show(error: PenstockError) -> None:
    """Into the rank's log: the user's traceback when there is one, then the error."""
    text = error.facts.get("traceback")
    sys.stderr.write(f"{text}\n" if text else "")
    sys.stderr.write(f"penstock: [{error.code}] {error}\n")
    sys.stderr.flush()


def _step_of(error: PenstockError) -> int:
    return int(error.facts.get("step", 0))
