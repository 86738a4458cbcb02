"""The table for people, and the JSON for machines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Report = dict[str, Any]


def show(report: Report) -> None:
    """Print a report to stdout."""
    console = Console()
    m = report["machine"]
    versions = " · ".join(f"{name} {version}" for name, version in report["versions"].items())
    console.print(
        f"\n[bold]{report['name']}[/bold]{' (quick)' if report['quick'] else ''} · "
        f"{report['date']} · seed {report['seed']}\n"
        f"{m['cores']} cores · {m['memory_gib']} GiB · load {m['load']} before · {m['system']}\n"
        f"{versions}",
        highlight=False,
    )
    table = Table("subject", "metric", "unit")
    for title in ("median", "min", "max", "n"):
        table.add_column(title, justify="right")
    for row in report["rows"]:
        numbers = [_number(row[key]) for key in ("median", "min", "max")]
        table.add_row(row["subject"], row["metric"], row["unit"], *numbers, str(row["n"]))
    console.print(table)
    for name, value in report["ratios"].items():
        console.print(f"ratio  {name}: {_number(value)}", highlight=False)
    for goal in report["goals"]:
        verdict = "[green]holds[/green]" if goal["holds"] else "[red bold]FALLS SHORT[/red bold]"
        got = _number(goal["got"])
        console.print(
            f"goal   {goal['name']}: {goal['wanted']}, got {got}: {verdict}", highlight=False
        )
    for note in report["notes"]:
        console.print(f"note   {note}", highlight=False, markup=False)


def write(reports: list[Report], path: Path) -> None:
    """One object; of several benchmarks a list. What is not a number becomes null."""
    plain = [_plain(report) for report in reports]
    path.write_text(json.dumps(plain[0] if len(plain) == 1 else plain, indent=1) + "\n")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list():
            return [_plain(each) for each in value]
        case float() if not math.isfinite(value):
            return None
    return value
