"""`penstock gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.frame import Answer, command, home

if TYPE_CHECKING:
    from typing import Any

    from penstock.cli.draw import Drawing


def register(app: typer.Typer) -> None:
    """Put the command beside the nouns."""

    @command(app, "gc", ["penstock gc --dry-run", "penstock gc"])
    def gc(
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only say what would be removed.")
        ] = False,
    ) -> Answer:
        """Remove what no version, no run and no live writer refers to."""
        found = home().collect_garbage(apply=not dry_run)
        return Answer(found, lambda draw: _draw(draw, found))


def _draw(draw: Drawing, found: dict[str, Any]) -> None:
    from penstock.base.units import show_bytes

    draw.facts(
        {
            key.replace("_", " "): show_bytes(value) if "bytes" in key else value
            for key, value in found.items()
        }
    )
