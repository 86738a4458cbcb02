"""`penstock cluster …`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.frame import Answer, Stream, command, group, home, options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.cli.draw import Drawing
    from penstock.home import Home
    from penstock.home.views import ClusterView, HoldView

app = group("The cluster on which ranks run.")
_EVERY = 2.0  # seconds between two looks


@command(
    app,
    "status",
    [
        "penstock cluster status",
        "penstock cluster status --watch",
        "penstock cluster status --json",
    ],
)
def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Again every two seconds, until Ctrl-C.")
    ] = False,
) -> Answer | Stream | int:
    """Its nodes, what runs hold of them and wait for, and what went wrong lately.

    Where the cluster does not answer, what rows tell, and that it is so.
    """
    from penstock.cli.progress import doing

    at = home()
    if watch and options.json:
        return Stream(_looks(at))
    if watch and sys.stdout.isatty():
        return _follow(at)
    with doing() as tell:
        found = at.cluster(tell)
    return Answer(found, lambda draw: _draw(draw, found))


def _looks(at: Home) -> Iterator[ClusterView]:
    while True:
        yield at.cluster(lambda what: None)
        time.sleep(_EVERY)


def _follow(at: Home) -> int:
    """Draw anew until Ctrl-C; the last look stays on the screen."""
    from penstock.cli.draw import Drawing

    draw = Drawing()
    with suppress(KeyboardInterrupt):
        for found in _looks(at):
            draw.console.clear()
            _draw(draw, found)
    return 0


def _draw(draw: Drawing, found: ClusterView) -> None:
    from rich.text import Text

    from penstock.cli.draw import age, state

    draw.line(Text(found.engine, style="bold"), f"  {found.note}" if found.note else "")
    if found.error is not None:
        draw.line(Text("the cluster does not answer: ", style="bold red"), found.error["what"])
        draw.line(Text(f"fix: {found.error['fix']}", style="dim"))
        draw.line("what follows is from rows, and may be over")
    elif not found.note:
        _nodes(draw, found)
    draw.title("trainings that go on")
    runs = [(each.name, state(each.state), each.workers, each.step, each.id) for each in found.runs]
    draw.table(("name", "state", "> ranks", "> step", "id"), runs, empty="none")
    draw.title("held by them")
    draw.table(
        ("run", "ranks", "node", "holds", "state", "attempt", "generation", "agent", "id"),
        [_hold(each) for each in found.holds],
        empty="nothing",
    )
    if found.waits:
        draw.title("waiting for room")
        rows = [(w.name, w.wanted, w.there, age(w.since, found.at), w.run) for w in found.waits]
        draw.table(("run", "for", "there was", "since", "id"), rows)
    if found.faults:
        from penstock.cli.data.drawing import pairs

        draw.title("lately")
        lines = [(age(e.at, found.at), e.kind, e.subject, pairs(e.body)) for e in found.faults]
        draw.table(("when", "what", "of", "more"), lines)


def _nodes(draw: Drawing, found: ClusterView) -> None:
    from penstock.cli.draw import state

    rows = [
        (
            each.name,
            state(each.state) if each.leaving is None else f"leaving in {each.leaving:.0f} s",
            _of(each.free, each.total, "cpus"),
            _of(each.free, each.total, "gpus"),
            _of(each.free, each.total, "memory"),
            each.host,
        )
        for each in found.nodes
    ]
    columns = ("node", "state", "> CPUs free", "> GPUs free", "> memory free", "host")
    draw.table(columns, rows, empty="no nodes")


def _of(free: Mapping[str, float], total: Mapping[str, float], kind: str) -> str:
    from penstock.base.units import show_bytes

    if not total.get(kind):
        return "-"
    show = show_bytes if kind == "memory" else "{:g}".format
    return f"{show(free.get(kind, 0.0))} of {show(total[kind])}"


def _hold(each: HoldView) -> tuple[object, ...]:
    holds = ", ".join(f"{amount:g} {name}" for name, amount in each.resources.items())
    ranks = ", ".join(map(str, each.ranks))
    who = each.name or "of another home"
    about = (each.state, each.attempt, each.generation, each.agent, each.run)
    return who, ranks or None, each.node, holds or None, *about
