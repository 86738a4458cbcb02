"""One failure, one message: on stderr for people, on stdout as JSON for machines. No traceback.

With PENSTOCK_LOG_LEVEL=debug the traceback comes too, for those who mend Penstock itself.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from penstock.base.errors import BadInput, PenstockError
from penstock.cli.machine import dumps

_PACKAGE = Path(__file__).resolve().parents[1]
INTERRUPTED = 130  # what shells give a process that Ctrl-C ended


def report(error: BaseException, as_json: bool = False) -> int:
    """Say what happened and return the exit code."""
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("\ninterrupted\n")
        return INTERRUPTED
    if os.environ.get("PENSTOCK_LOG_LEVEL", "").lower() == "debug":
        traceback.print_exception(error)
    known = understood(error)
    if as_json:
        sys.stdout.write(dumps({"error": known.as_dict()}) + "\n")
        sys.stdout.flush()
    else:
        sys.stderr.write(text(known, colour=sys.stderr.isatty()))
        sys.stderr.flush()
    return known.exit_code


def text(error: PenstockError, colour: bool = False) -> str:
    """The message: a user function's own traceback first, then what, then the fix."""
    red, dim, off = ("\x1b[1;31m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    lines = own_frames(str(error.facts.get("traceback") or ""), error).splitlines()
    lines.append(f"{red}error{off} {dim}[{error.code}]{off} {error.what}")
    if error.fix:
        lines.append(f"  {dim}fix:{off} {error.fix}")
    return "\n".join(lines) + "\n"


def own_frames(trace: str, error: PenstockError) -> str:
    """A user function's traceback without Penstock's own frames.

    Where it ends with `error` itself, that is left out too: the message says the same.
    """
    kind = type(error)
    kept: list[str] = []
    inside = False  # of a frame of Penstock's
    itself = f"{kind.__module__}.{kind.__qualname__}: {error}"
    for line in trace.rstrip().removesuffix(itself).splitlines():
        if not line.startswith("    "):
            inside = line.startswith(f'  File "{_PACKAGE}{os.sep}')
        if not inside:
            kept.append(line)
    return "\n".join(kept)


def understood(error: BaseException) -> PenstockError:
    """The family's own errors as they are; the parser's as BadInput; the rest as our fault."""
    if isinstance(error, PenstockError):
        return error
    explain = getattr(
        error, "format_message", None
    )  # click's, which typer brings under its own name
    if callable(explain):
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", None) or "penstock"
        return BadInput(_one_line(explain()), f"See: {path} --help")
    where = traceback.extract_tb(error.__traceback__)
    at = f" in {where[-1].name} ({where[-1].filename}:{where[-1].lineno})" if where else ""
    return PenstockError(
        f"unexpected {type(error).__name__}{at}: {_one_line(str(error))}",
        "This is a bug of Penstock. PENSTOCK_LOG_LEVEL=debug shows its traceback.",
        kind=type(error).__name__,
    )


def _one_line(message: str) -> str:
    return " ".join(message.split()).rstrip(".")
