"""`penstock data alias|tag|gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.data.asked import Reference
from penstock.cli.frame import Answer, command, home

if TYPE_CHECKING:
    from typing import Any

    from penstock.cli.draw import Drawing
    from penstock.records.looks import Retired


def register(app: typer.Typer) -> None:
    """Put the commands under the noun."""

    @command(
        app,
        "alias",
        ["penstock data alias digits@3 stable", "penstock data alias digits@3 stable --expect 2"],
    )
    def alias(
        reference: Reference,
        name: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias to move or make.")],
        expect: Annotated[
            int | None,
            typer.Option(
                min=0, metavar="VERSION", help="Only if it points there now; 0: only if it is new."
            ),
        ] = None,
    ) -> Answer:
        """Point an alias at a version; whoever moved it meanwhile is not overruled."""
        moved = home().move_data_alias(reference, name, expect)
        return Answer(
            moved,
            lambda draw: draw.line(f"{moved.name}@{moved.alias} is {moved.name}@{moved.version}"),
        )

    @command(
        app,
        "tag",
        ["penstock data tag digits@3 gold reviewed", "penstock data tag digits@3 gold --remove"],
    )
    def tag(
        reference: Reference,
        tags: Annotated[
            list[str] | None, typer.Argument(metavar="TAG...", help="Labels of any kind.")
        ] = None,
        remove: Annotated[bool, typer.Option("--remove", help="Take them away.")] = False,
    ) -> Answer:
        """Label a version; one that has a tag is never dropped. Without tags: show them."""
        at, given = home(), tags or []
        has = at.tag_data(reference, *((), given) if remove else (given, ()))
        return Answer({"tags": has}, lambda draw: draw.line(", ".join(has) or "no tags"))

    @command(app, "gc", ["penstock data gc --dry-run", "penstock data gc digits --keep 3"])
    def gc(
        name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this name.")] = None,
        keep: Annotated[
            int | None,
            typer.Option(min=0, metavar="N", help="Default: the setting keep_versions."),
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Only say what would be dropped.")
        ] = False,
    ) -> Answer:
        """Drop old versions without alias and tag that nothing refers to, then their blobs."""
        at = home()
        retired = at.retire_data(name, keep, apply=not dry_run)
        blobs = at.collect_garbage(apply=not dry_run)
        found = {"versions": retired, "blobs": blobs}
        return Answer(found, lambda draw: _draw(draw, retired, blobs, dry_run))


def _draw(draw: Drawing, retired: Retired, blobs: dict[str, Any], dry_run: bool) -> None:
    from penstock.base.units import show_bytes

    would = "would drop" if dry_run else "dropped"
    draw.line(f"{would} {', '.join(retired.dropped)}" if retired.dropped else f"{would} nothing")
    draw.table(
        ("stays", "because of"),
        [(reference, ", ".join(why)) for reference, why in retired.kept.items()],
        empty="no version has a reason to stay",
    )
    draw.facts({f"blobs {key}": show_bytes(n) if "bytes" in key else n for key, n in blobs.items()})
