"""`penstock evals`: list, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.data import pairs
from penstock.cli.frame import Answer, command, group, home

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.records import Evaluation

app = group("Evaluations: metrics with intervals, slices, gates, verdicts.")


@command(app, "list", ["penstock evals list", "penstock evals list --model digits-cnn@1"])
def list_evals(
    model: Annotated[
        str | None, typer.Option(metavar="NAME[@VERSION]", help="Only of this model version.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many, newest first.")] = 20,
) -> Answer:
    """Evaluations, newest first."""
    found = home().evaluations(model=model, limit=limit)
    return Answer(found, lambda draw: _draw_list(draw, found))


@command(app, "show", ["penstock evals show eval-01jd", "penstock evals show eval-01jd --json"])
def show_eval(
    evaluation: Annotated[str, typer.Argument(metavar="ID", help="From `penstock evals list`.")],
) -> Answer:
    """One report: every metric with its interval, every slice, every gate."""
    report = home().evaluation(evaluation)
    return Answer(report, lambda draw: _draw_report(draw, report))


def _draw_list(draw: Drawing, found: list[Evaluation]) -> None:
    from penstock.cli.draw import age, state

    draw.table(
        ("id", "suite", "model", "data", "verdict", "made", "summary"),
        [
            (
                each.id,
                each.suite,
                each.model,
                each.dataset,
                state("pass" if each.passed else "blocked"),
                age(each.created_at),
                pairs(each.summary, 80),
            )
            for each in found
        ],
        empty="no evaluations",
    )


def _draw_report(draw: Drawing, report: dict[str, Any]) -> None:
    from rich.text import Text

    from penstock.cli.draw import age, state

    record = report["evaluation"]
    verdict = state("pass" if record["passed"] else "blocked")
    draw.line(Text(record["suite"], style="bold"), "  ", verdict, "  ", record["id"])
    draw.facts(
        {"model": record["model"], "data": record["dataset"], "made": age(record["created_at"])}
    )
    for part in ("metrics", "slices", "gates"):
        if report.get(part):
            draw.title(part)
            _draw_part(draw, report[part])


def _draw_part(draw: Drawing, part: Any) -> None:
    """Rows with the same keys become a table; anything else, names and values."""
    rows = list(part.values()) if isinstance(part, dict) else list(part)
    if rows and all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        names = list(part) if isinstance(part, dict) else [None] * len(rows)
        head = [] if names[0] is None else ["name"]
        columns = [key for key in rows[0] if not isinstance(rows[0][key], dict | list)]
        draw.table(
            [*head, *columns],
            [
                [*([name] if head else []), *(row[key] for key in columns)]
                for name, row in zip(names, rows, strict=True)
            ],
        )
    elif isinstance(part, dict):
        draw.facts({key: pairs(value) for key, value in part.items()})
    else:
        for row in rows:
            draw.line("  ", pairs(row))
