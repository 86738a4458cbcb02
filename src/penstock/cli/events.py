"""`penstock events`: the story of a home, as it was committed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.data import pairs
from penstock.cli.frame import Stream, command, home

if TYPE_CHECKING:
    from penstock.home import Home
    from penstock.records import Event

_PAGE = 1000


def register(app: typer.Typer) -> None:
    """Put the command beside the nouns."""

    @command(app, "events", ["penstock events", 'penstock events "run/*" -f'])
    def events(
        subject: Annotated[
            str | None,
            typer.Argument(metavar="SUBJECT", help='Such as model/digits-cnn or "run/*".'),
        ] = None,
        after: Annotated[int, typer.Option(min=0, metavar="N", help="Only after this number.")] = 0,
        follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    ) -> Stream:
        """What changed, in the order in which it was committed."""
        return Stream(_all(home(), subject, after, follow), _line)


def _all(home: Home, subject: str | None, after: int, follow: bool) -> Iterator[Event]:
    while True:
        found = home.events(after, subject, limit=_PAGE, wait=5.0 if follow else 0.0)
        yield from found
        if found:
            after = found[-1].seq
        if not follow and len(found) < _PAGE:
            return


def _line(event: Event) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    return f"{event.seq:>6}  {at}  {event.kind:24} {event.subject}  {pairs(event.body)}".rstrip()
