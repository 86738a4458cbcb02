"""`penstock models`: list, show, why, promote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.data import draw_version, draw_versions, pairs
from penstock.cli.frame import Answer, command, group, home

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing

app = group("Models: versions, aliases, where they came from.")

Reference = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@VERSION-OR-ALIAS]", help="The newest version when nothing is said."
    ),
]


@command(app, "list", ["penstock models list", "penstock models list digits-cnn --json"])
def list_models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many, newest first.")] = 50,
) -> Answer:
    """Model versions, newest first, with the aliases that point at them."""
    views = home().models(name, limit=limit)
    return Answer(views, lambda draw: draw_versions(draw, views, "no models"))


@command(app, "show", ["penstock models show digits-cnn@production"])
def show_model(reference: Reference) -> Answer:
    """One model version: its package, signature, environment."""
    detail = home().model(reference)
    return Answer(detail, lambda draw: draw_version(draw, detail))


@command(app, "why", ["penstock models why digits-cnn@production"])
def why(reference: Reference) -> Answer:
    """Why it is what it is: alias, model version, run, dataset version, function, commit."""
    found = home().why(reference)
    return Answer(found, lambda draw: _draw_lineage(draw, found))


@command(
    app,
    "promote",
    [
        "penstock models promote digits-cnn@2 production",
        "penstock models promote digits-cnn@2 production --evidence eval-01jd",
    ],
)
def promote(
    reference: Reference,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias to move.")],
    evidence: Annotated[
        str | None,
        typer.Option(metavar="EVALUATION", help="Its id; default: the newest of that version."),
    ] = None,
) -> Answer:
    """Move an alias; refused unless an evaluation of exactly that version passed every gate."""
    moved = home().promote(reference, alias, evidence)
    return Answer(
        moved,
        lambda draw: draw.line(f"{moved.name}@{moved.alias} is {moved.name}@{moved.version} now"),
    )


def _draw_lineage(draw: Drawing, found: dict[str, Any]) -> None:
    from rich.text import Text

    draw.line(Text(found["line"], style="bold"))
    draw.line()
    draw.table(
        ("what", "name", "facts"),
        [
            (
                Text(step["what"], style="dim"),
                step["name"],
                Text(pairs(step["facts"]), style="dim"),
            )
            for step in found["steps"]
        ],
    )
