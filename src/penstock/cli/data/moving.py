"""`penstock data export|import|explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.data.asked import Columns, Split, names
from penstock.cli.frame import Answer, command, home

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.records.looks import Exported


def register(app: typer.Typer) -> None:
    """Put the commands under the noun."""
    _register_export(app)


def _register_export(app: typer.Typer) -> None:
    @command(
        app,
        "export",
        [
            "penstock data export digits@3 out",
            "penstock data export digits:test test-set --format jsonl --columns id,label",
        ],
    )
    def export(
        reference: Split,
        folder: Annotated[
            Path, typer.Argument(metavar="FOLDER", help="Not there yet; appears when all is.")
        ],
        format: Annotated[
            str,
            typer.Option(
                "--format", metavar="FORMAT", help="parquet, arrow, csv, jsonl, webdataset."
            ),
        ] = "parquet",
        columns: Columns = None,
    ) -> Answer:
        """Write a version as files that others read; without a split a folder for each."""
        from penstock.cli.progress import progress

        with progress(f"exporting {reference}") as advance:
            found = home().export_data(reference, folder, format, names(columns), advance)
        return Answer(found, lambda draw: _draw_exported(draw, found))


def _draw_exported(draw: Drawing, found: Exported) -> None:
    from penstock.base.units import show_bytes

    many = f"{len(found.files)} files" if len(found.files) != 1 else "1 file"
    size = show_bytes(found.bytes)
    draw.line(f"{found.reference} is in {found.folder}: {many}, {found.rows:,} rows, {size}")
