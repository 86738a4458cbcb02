"""What the commands of `penstock data` take."""

from __future__ import annotations

from typing import Annotated

import typer

Reference = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@VERSION-OR-ALIAS]", help="The newest version when nothing is said."
    ),
]
Split = Annotated[
    str,
    typer.Argument(
        metavar="NAME[@VERSION-OR-ALIAS][:SPLIT]",
        help="The newest version, the first split, when nothing is said.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", metavar="A,B", help="Only these columns, with commas between."),
]


def names(columns: str | None) -> list[str] | None:
    """Column names that were given with commas between; None for none.

    >>> names("id, image"), names(None)
    (['id', 'image'], None)
    """
    if columns is None:
        return None
    return [each.strip() for each in columns.split(",") if each.strip()]
