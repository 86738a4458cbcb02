"""Verbs belong to the script, not to the processes that the script started."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from penstock.base.errors import BadInput, MissingExtra, MissingMainGuard

_PACKAGE = str(Path(__file__).resolve().parent.parent)


def only_in_scripts(verb: str) -> None:
    """Refuse `verb` in a rank or worker, whose environment has PENSTOCK_RANK.

    Called while the user's module is being imported there, the module lacks its `main` guard:
    MissingMainGuard names it. Called later, by the training function itself: BadInput.
    """
    rank = os.environ.get("PENSTOCK_RANK")
    if rank is None:
        return
    script = _importing()
    if script is None:
        raise BadInput(
            f"ps.{verb} was called inside rank {rank}, where only the training function runs",
            f"Call ps.{verb} in your script's main(), beside ps.train.",
            verb=verb,
            rank=rank,
        )
    raise MissingMainGuard(
        f"{script.name} calls ps.{verb} while it is imported, so every rank would call it again",
        f'In {_named(script)}, put the call under:  if __name__ == "__main__":',
        verb=verb,
        script=_named(script),
        rank=rank,
    )


def only_in_one_process(verb: str) -> None:
    """Refuse `verb` in a script that a launcher started several times: all would do it."""
    from penstock.training.launched.here import seat_here

    seat = seat_here()
    if seat is None or seat.world_size == 1:
        return
    raise BadInput(
        f"ps.{verb} was called in {seat.world_size} processes that {seat.launcher} started",
        f"Run the script that calls ps.{verb} without {seat.launcher}.",
        verb=verb,
        launcher=seat.launcher,
    )


def need_torch() -> None:
    """Raises MissingExtra."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtra(
            "training needs torch, which is not installed",
            "pip install 'penstock[torch]', or the torch build that your machine needs.",
        )


def _named(script: Path) -> str:
    """The user's own name of it: a rank imports a snapshot, where no edit would be heard of."""
    for folder in sorted(filter(None, sys.path), key=len, reverse=True):
        if script.is_relative_to(folder):
            return str(script.relative_to(folder))
    return str(script)


def _importing() -> Path | None:
    """The user's file whose top level is being executed now, the innermost one."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        own = code.co_filename.startswith(_PACKAGE) or code.co_filename.startswith("<frozen")
        if code.co_name == "<module>" and not own:
            return Path(code.co_filename)
        frame = frame.f_back  # type: ignore[assignment]
    return None
