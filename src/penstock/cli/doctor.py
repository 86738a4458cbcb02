"""`penstock doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.frame import Answer, command, home

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.home.views import Check

_SIGNS = {"ok": "✓", "warn": "!", "fail": "✗"}
_FEW = 8  # nodes of which all findings are drawn; of more, those that are not well


def register(app: typer.Typer) -> None:
    """Put the command beside the nouns."""

    @command(
        app,
        "doctor",
        [
            "penstock doctor",
            "penstock doctor --json",
            "penstock doctor --cluster",
            "penstock doctor --cluster --patience 20 --json",
        ],
    )
    def doctor(
        cluster: Annotated[
            bool,
            typer.Option("--cluster", help="The stores and each node that the settings name."),
        ] = False,
        patience: Annotated[
            float,
            typer.Option(min=1.0, metavar="SECONDS", help="For each answer of a node."),
        ] = 60.0,
    ) -> Answer:
        """Look at installation, settings, home, memory, ports and GPUs; say how to mend them.

        With --cluster instead: rows, blobs and every node of `engine`, from here, from there and
        between nodes. Exit code 1 when something fails.
        """
        checks = _examined(patience) if cluster else _checks()
        failed = any(check.state == "fail" for check in checks)
        return Answer(checks, lambda draw: _draw(draw, checks), 1 if failed else 0)


def _checks() -> list[Check]:
    from penstock.base.errors import SettingsError

    try:
        at = home()
    except SettingsError as error:
        from penstock.home.doctor import look_without

        return look_without(error)
    return at.doctor()


def _examined(patience: float) -> list[Check]:
    from penstock.cli.progress import doing

    at = home()
    with doing() as tell:
        return at.examine(tell, patience)


def _draw(draw: Drawing, checks: list[Check]) -> None:
    nodes = list(dict.fromkeys(check.node for check in checks if check.node))
    width = max(len(check.name) for check in checks)
    _findings(draw, [check for check in checks if not check.node], width)
    for node in nodes:
        found = [check for check in checks if check.node == node]
        draw.title(node)
        shown = found if len(nodes) <= _FEW else [each for each in found if each.state != "ok"]
        _findings(draw, shown, width)
        if len(shown) < len(found):
            draw.line(f"   {len(found) - len(shown)} more, all well")
    bad = sum(check.state == "fail" for check in checks)
    doubtful = sum(check.state == "warn" for check in checks)
    of_nodes = f" · {len(nodes)} nodes" if len(nodes) > 1 else ""
    draw.line()
    draw.line(f"{len(checks)} checks · {bad} failed · {doubtful} to look at{of_nodes}")


def _findings(draw: Drawing, checks: Sequence[Check], width: int) -> None:
    from rich.text import Text

    from penstock.cli.draw import state

    for check in checks:
        sign = state(check.state)
        sign.plain = _SIGNS[check.state]
        draw.line(" ", sign, " ", Text(check.name.ljust(width), style="bold"), "  ", check.found)
        if check.fix:
            draw.line(" " * (width + 5), Text(f"fix: {check.fix}", style="dim"))
