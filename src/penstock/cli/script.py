"""`ps.main`: a user's script with the manners of the command line."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.base.errors import PenstockError
from penstock.cli import failure, watching
from penstock.home.guard import only_in_scripts

_NOT_THE_SCRIPT = str(Path(__file__).resolve().parent.parent), sysconfig.get_path("stdlib")


def main(
    function: Callable[..., Any], config: Any = None, arguments: Sequence[str] | None = None
) -> Any:
    """Run a script: `ps.main(main)`, or `ps.main(fit, Config)` with a command line for training.

    A Penstock error becomes one clear message and its exit code, Ctrl-C a clean 130; exceptions
    of the script's own are left to Python. With a config (a dataclass, pydantic model or dict, as
    class or instance) the command line is

        python train.py lr=1e-3 model.width=64 --workers 2 --name base --detach
        python train.py --sweep lr=1e-4,1e-3 model.width=32,64 --parallel 2
    """
    only_in_scripts("main")
    try:
        _begin_early()
        from penstock.home.verbs import train, tune, watched

        with watched(watching.training):
            if config is None:
                return function()
            from penstock.cli.overrides import parse

            given = parse(function, config, sys.argv[1:] if arguments is None else arguments)
            if given.space is not None:
                return tune(function, given.space, given.config, **given.options)
            return train(function, given.config, **given.options)
    except (PenstockError, KeyboardInterrupt) as error:
        code = failure.report(error)
        if isinstance(error, PenstockError) and (place := _place(error)):
            sys.stderr.write(f"  at:  {place}\n")
        sys.exit(code)


def _begin_early() -> None:
    """Torch for the ranks is imported beside all else; where settings are wrong, they are told by
    whoever needs them."""
    from penstock.base.layout import Layout
    from penstock.base.settings import load_settings
    from penstock.home import explaining
    from penstock.training import early
    from penstock.training.launched.seat import seat_in

    if explaining.VARIABLE in os.environ:
        return  # it only tells what it would do
    with suppress(PenstockError):
        if seat_in(os.environ) is not None:
            return  # the ranks are a launcher's, and this is one
        early.begin(Layout(load_settings().home))


def _place(error: PenstockError) -> str | None:
    """The innermost line of the script that led to the error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_SCRIPT)]
    return f"{own[-1].filename}:{own[-1].lineno} in {own[-1].name}" if own else None
