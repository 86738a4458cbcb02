"""`penstock data list|show|head|stats|diff|lineage|verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli.data.asked import Columns, Reference, Split, names
from penstock.cli.frame import Answer, command, home

_DAMAGED = 6  # exit code, as of a command that raises Damaged


def register(app: typer.Typer) -> None:
    """Put the commands under the noun."""
    _register_lists(app)
    _register_rows(app)
    _register_checks(app)


def _register_lists(app: typer.Typer) -> None:
    @command(app, "list", ["penstock data list", "penstock data list digits --json"])
    def list_data(
        name: Annotated[str | None, typer.Argument(metavar="NAME", help="Only this name.")] = None,
        limit: Annotated[
            int, typer.Option(min=1, metavar="N", help="How many, newest first.")
        ] = 50,
    ) -> Answer:
        """Dataset versions, newest first, with their aliases and tags."""
        from penstock.cli.data.drawing import draw_versions

        views = home().datasets(name, limit=limit)
        return Answer(views, lambda draw: draw_versions(draw, views, "no datasets"))

    @command(app, "show", ["penstock data show digits", "penstock data show digits@1 --json"])
    def show_data(reference: Reference) -> Answer:
        """One dataset version: splits, columns, statistics, lineage."""
        from penstock.cli.data.drawing import draw_version

        detail = home().dataset(reference)
        return Answer(detail, lambda draw: draw_version(draw, detail))


def _register_rows(app: typer.Typer) -> None:
    @command(
        app,
        "head",
        ["penstock data head digits:train", "penstock data head digits -n 3 --columns id,label"],
    )
    def head(
        reference: Split,
        rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=1000, help="How many.")] = 10,
        start: Annotated[int, typer.Option(min=0, metavar="N", help="The first one.")] = 0,
        columns: Columns = None,
    ) -> Answer:
        """Some rows; images, tensors and bytes are summarised."""
        from penstock.cli.data.tables import draw_rows

        found = home().data_rows(reference, rows, start, names(columns))
        return Answer(found, lambda draw: draw_rows(draw, found))

    @command(app, "stats", ["penstock data stats digits", "penstock data stats digits@2 --json"])
    def stats(reference: Reference, columns: Columns = None) -> Answer:
        """Every column: missing values, ends, mean, distinct values, a small histogram."""
        from penstock.cli.data.tables import chosen, draw_summaries

        found = chosen(home().data_statistics(reference), names(columns))
        return Answer(found, lambda draw: draw_summaries(draw, found))

    @command(app, "diff", ["penstock data diff digits@1 digits@2", "penstock data diff digits@1"])
    def diff(
        old: Reference,
        new: Annotated[
            str | None,
            typer.Argument(metavar="NEW", help="Default: the newest version of the same name."),
        ] = None,
    ) -> Answer:
        """What changed: rows by key, columns, drift of the values."""
        from penstock.cli.data.tables import draw_diff

        found = home().diff_data(old, new)
        return Answer(found, lambda draw: draw_diff(draw, found))


def _register_checks(app: typer.Typer) -> None:
    @command(app, "lineage", ["penstock data lineage digits", "penstock data lineage digits@3"])
    def lineage(reference: Reference) -> Answer:
        """What it was made from: datasets, functions, runs and files, as a tree."""
        from penstock.cli.data.tables import draw_ancestor

        found = home().data_lineage(reference)
        return Answer(found, lambda draw: draw_ancestor(draw, found))

    @command(app, "verify", ["penstock data verify digits", "penstock data verify digits@2"])
    def verify(reference: Reference) -> Answer:
        """Read every byte and compare it with its hash; exit code 6 when something is damaged."""
        from penstock.cli.data.tables import draw_verdict
        from penstock.cli.progress import progress

        with progress(f"reading {reference}", "bytes") as advance:
            found = home().verify_data(reference, advance)
        return Answer(found, lambda draw: draw_verdict(draw, found), 0 if found.whole else _DAMAGED)
