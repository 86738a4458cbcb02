"""`penstock doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.cli.frame import Answer, command, home

if TYPE_CHECKING:
    import typer

    from penstock.cli.draw import Drawing
    from penstock.home.views import Check


def register(app: typer.Typer) -> None:
    """Put the command beside the nouns."""

    @command(app, "doctor", ["penstock doctor", "penstock doctor --json"])
    def doctor() -> Answer:
        """Look at installation, settings, home, memory, ports and GPUs; say how to mend them."""
        checks = _checks()
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


def _draw(draw: Drawing, checks: list[Check]) -> None:
    from rich.text import Text

    from penstock.cli.draw import state

    signs = {"ok": "✓", "warn": "!", "fail": "✗"}
    width = max(len(check.name) for check in checks)
    for check in checks:
        sign = state(check.state)
        sign.plain = signs[check.state]
        draw.line(" ", sign, " ", Text(check.name.ljust(width), style="bold"), "  ", check.found)
        if check.fix:
            draw.line(" " * (width + 5), Text(f"fix: {check.fix}", style="dim"))
    bad = sum(check.state == "fail" for check in checks)
    doubtful = sum(check.state == "warn" for check in checks)
    draw.line()
    draw.line(f"{len(checks)} checks · {bad} failed · {doubtful} to look at")
