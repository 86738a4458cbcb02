"""`penstock evals`: list, show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

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
        ("id", "suite", "model", "data", "verdict", "accuracy", "made"),
        [
            (
                each.id,
                each.suite,
                each.model,
                each.dataset,
                state("pass" if each.passed else "blocked"),
                estimate(each.summary.get("metrics", {}).get("accuracy")),
                age(each.created_at),
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
    baseline = report.get("baseline") or {}
    draw.facts(
        {
            "model": record["model"],
            "data": record["dataset"],
            "rows": report.get("rows"),
            "baseline": baseline.get("resolved") or baseline.get("why"),
            "not finite": report.get("not_finite") or None,
            "made": age(record["created_at"]),
        }
    )
    draw.title("metrics")
    metrics = report.get("metrics", {})
    draw.table(
        ("name", "value [95 %]", "> n"),
        [(name, estimate(each), each.get("n")) for name, each in metrics.items()],
    )
    if report.get("slices"):
        names = list(report["slices"][0]["metrics"])
        draw.title("slices")
        draw.table(
            ("column", "value", *names, "> n"),
            [_slice(each, names) for each in report["slices"]],
        )
    if report.get("gates"):
        draw.title("gates")
        draw.table(
            ("outcome", "why"), [(state(each["outcome"]), each["says"]) for each in report["gates"]]
        )


def _slice(each: dict[str, Any], names: list[str]) -> list[Any]:
    first = each["metrics"][names[0]]
    return [
        each["column"],
        each["value"],
        *(estimate(each["metrics"][name]) for name in names),
        first.get("n"),
    ]


def estimate(found: dict[str, Any] | None) -> str:
    """A metric with its interval; "?" where an end is unbounded.

    >>> estimate({"value": 0.98333, "low": 0.964, "high": None})
    '0.983 [0.964, ?]'
    """
    if not found:
        return "-"
    ends = ["?" if found.get(k) is None else f"{found[k]:.3f}" for k in ("low", "high")]
    return f"{found['value']:.3f} [{ends[0]}, {ends[1]}]"
