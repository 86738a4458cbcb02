"""How a study looks on a terminal, and where its pictures are written."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from penstock.base.errors import BadInput
from penstock.base.files import os_errors
from penstock.cli import plot as pictures
from penstock.cli.draw import Drawing, age, cell, state, took
from penstock.home.views import StudyView

_KINDS = {".svg": pictures.svg, ".html": pictures.html}


def study(draw: Drawing, found: StudyView, plot: Path | None) -> None:
    """The study in a few facts, its trials one line each, the best one marked."""
    run, search, metric = found.run, found.search, found.metric
    draw.line(Text(run.name, style="bold"), "  ", state(run.state), "  ", run.id)
    draw.facts(
        {
            "metric": metric and f"{metric} ({search['value']}), {found.direction}",
            "trials": f"{run.step} of {run.steps} begun",
            "sampler": search["sampler"],
            "pruner": None if search["pruner"] == "none" else search["pruner"],
            "started": age(run.created_at),
            "best": found.best,
        }
    )
    if run.error:
        draw.line(Text("error ", style="bold red"), str(run.error.get("what", "")))
    paths = list(search["space"])
    draw.title("trials")
    draw.table(
        ("run", "state", f"> {metric or 'value'}", "> step", "> took", *paths, ""),
        [
            (
                Text(each.name, style="bold" if each.name == found.best else ""),
                state(each.state),
                each.value,
                each.step,
                took(each.created_at, each.ended_at),
                *(cell(each.params[path]) for path in paths),
                "best" if each.name == found.best else each.reason or "",
            )
            for each in found.trials
        ],
        empty="none yet",
    )
    if plot is not None:
        draw.line(f"drawn: {plot}")


def check_plot(path: Path) -> None:
    """Raises BadInput for a file of another kind."""
    if path.suffix not in _KINDS:
        raise BadInput(f"{path} is neither .svg nor .html", "Name the file search.svg, say.")


def write_plot(found: StudyView, path: Path) -> None:
    """Raises BadInput (nothing to draw), DiskFull, ReadOnly."""
    if found.metric is None:
        raise BadInput(
            f'the trials of "{found.run.name}" are not compared by a metric',
            "Name one: metric=, or --minimize or --maximize on the command line of the script.",
        )
    with os_errors(f"writing {path}", path):
        path.write_text(_KINDS[path.suffix](found), encoding="utf-8")
