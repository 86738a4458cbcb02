"""`penstock deployments`: list, show, deploy, serve, stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.data import pairs
from penstock.cli.frame import Answer, Stream, command, group, home

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.records import Deployment

app = group("Deployments: which model version answers under which name, and where.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The endpoint's name.")]
Model = Annotated[
    str, typer.Argument(metavar="MODEL[@VERSION-OR-ALIAS]", help="The model to serve.")
]


@command(app, "list", ["penstock deployments list"])
def list_deployments() -> Answer:
    """Every endpoint, what it serves and where it listens."""
    found = home().deployments()
    return Answer(found, lambda draw: _draw_list(draw, found))


@command(app, "show", ["penstock deployments show digits"])
def show_deployment(name: Name) -> Answer:
    """One endpoint."""
    found = home().deployment(name)
    return Answer(found, lambda draw: _draw(draw, found))


@command(app, "deploy", ["penstock deployments deploy digits digits-cnn@production"])
def deploy(name: Name, model: Model) -> Answer:
    """Want an endpoint to serve a model; `penstock up` brings it up and keeps it up."""
    found = home().deploy(name, model)
    return Answer(found, lambda draw: _draw(draw, found))


@command(app, "serve", ["penstock deployments serve digits digits-cnn@production"])
def serve(name: Name, model: Model) -> Stream:
    """Deploy, and keep it up in this terminal until Ctrl-C; calls in flight are answered first."""
    return Stream(_until_stopped(name, model), lambda said: str(said["says"]))


def _until_stopped(name: str, model: str) -> Iterator[dict[str, str]]:
    import signal
    import threading

    ended = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: ended.set())
    with home().serve(name, model) as address:
        yield {"name": name, "address": address, "says": f"{name} answers on {address}"}
        ended.wait()


@command(app, "stop", ["penstock deployments stop digits"])
def stop(name: Name) -> Answer:
    """Want an endpoint down; calls in flight are answered first."""
    found = home().stop_deployment(name)
    return Answer(found, lambda draw: _draw(draw, found))


def _draw_list(draw: Drawing, found: list[Deployment]) -> None:
    from penstock.cli.draw import age, state

    draw.table(
        ("name", "state", "model", "serves", "address", "changed"),
        [
            (d.name, state(d.state), d.model, d.resolved, d.address, age(d.updated_at))
            for d in found
        ],
        empty="no deployments",
    )


def _draw(draw: Drawing, found: Deployment) -> None:
    from rich.text import Text

    from penstock.cli.draw import age, state

    draw.line(Text(found.name, style="bold"), "  ", state(found.state))
    draw.facts(
        {
            "wanted": found.wanted,
            "model": found.model,
            "serves": found.resolved,
            "address": found.address,
            "changed": age(found.updated_at),
            "detail": pairs(found.detail),
        }
    )
