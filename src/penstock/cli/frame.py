"""What every command shares: `--json`, `--home`, examples in its help, and one kind of answer.

A command asks `home()` one question and returns an `Answer`; it never prints. The frame dumps the
answer's data as JSON, or imports rich and lets the answer draw itself.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.home.local import LocalHome


@dataclass(frozen=True, slots=True)
class Answer:
    """data       records, views or plain JSON: what `--json` prints
    draw       draws the same for people; what it is given offers tables, facts and lines
    exit_code  of the process, 0 unless the answer itself is bad news
    """

    data: Any
    draw: Callable[[Drawing], None]
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """Lines that come while somebody looks; `--json` prints one object per line."""

    items: Iterator[Any]
    show: Callable[[Any], str] = str


@dataclass(slots=True)
class Options:
    """What was said before and after the noun; one per process."""

    home: str | None = None
    json: bool = False
    opened: list[LocalHome] = field(default_factory=list)


options = Options()

Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
HomeOption = Annotated[
    str | None,
    typer.Option("--home", metavar="FOLDER", help="The home to use instead of the settings'."),
]


def home() -> LocalHome:
    """The home that this command talks to; closed when the process ends its command."""
    from penstock.base import log
    from penstock.home.local import open_home

    said = None if options.home is None else Path(options.home).expanduser().absolute()
    opened = open_home(home=said)
    log.set_up(opened.settings.log_level, opened.settings.log_format)
    options.opened.append(opened)
    return opened


def close_homes() -> None:
    """Close what `home` opened."""
    while options.opened:
        options.opened.pop().close()


def group(help_text: str) -> typer.Typer:
    """The commands of one noun."""
    return typer.Typer(help=help_text, no_args_is_help=True, pretty_exceptions_enable=False)


Command = Callable[..., Answer | Stream | int]  # int: it spoke itself, this is its exit code


def command(app: typer.Typer, name: str, examples: Sequence[str]) -> Callable[[Command], Command]:
    """Register a command. Its docstring is its help, its examples end the help."""

    def register(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        shared = {"as_json": (Json, False), "at_home": (HomeOption, None)}
        parameters = [p.replace(annotation=hints[p.name]) for p in signature.parameters.values()]
        parameters += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for key, (kind, default) in shared.items()
        ]

        def run(**given: Any) -> int:
            options.json = given.pop("as_json") or options.json
            options.home = given.pop("at_home") or options.home
            return render(function(**given))

        run.__doc__ = inspect.getdoc(function)
        run.__name__ = function.__name__
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        lines = "\n".join(f"  $ {example}" for example in examples)
        app.command(name, epilog=f"Examples:\n{lines}")(run)
        return function

    return register


def render(answer: Answer | Stream | int) -> int:
    """Print an answer in the form that was asked for; returns the exit code."""
    from penstock.cli.machine import dumps
    from penstock.records import to_data

    if isinstance(answer, int):
        return answer
    if isinstance(answer, Stream):
        for item in answer.items:
            text = dumps(to_data(item)) if options.json else answer.show(item)
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
        return 0
    if options.json:
        sys.stdout.write(dumps(to_data(answer.data), indent=2) + "\n")
    else:
        from penstock.cli.draw import Drawing

        answer.draw(Drawing())
    sys.stdout.flush()
    return answer.exit_code
