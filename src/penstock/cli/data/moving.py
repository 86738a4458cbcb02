"""`penstock data export|import|explain`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.data.asked import Columns, Split, names
from penstock.cli.frame import Answer, command, home

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.records.looks import Exported, Imported


def register(app: typer.Typer) -> None:
    """Put the commands under the noun."""
    _register_export(app)
    _register_import(app)
    _register_explain(app)


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


def _register_import(app: typer.Typer) -> None:
    @command(
        app,
        "import",
        [
            "penstock data import reviews 'raw/*.jsonl' --key id",
            "penstock data import pictures photos/ --splits train=0.9,test=0.1 --bad skip",
            "penstock data import demos runs/*.h5 --by episode --expect demos.toml",
            "penstock data import prices 'raw/*.csv' --cast price=float64 --cast id=string",
        ],
    )
    def import_data(
        name: Annotated[str, typer.Argument(metavar="NAME", help="Of the dataset.")],
        files: Annotated[
            list[str], typer.Argument(metavar="FILE...", help="Paths, folders, globs or URLs.")
        ],
        format: Annotated[
            str | None,
            typer.Option("--format", metavar="FORMAT", help="Default: by the files' extensions."),
        ] = None,
        columns: Columns = None,
        cast: Annotated[
            list[str] | None,
            typer.Option(
                "--cast",
                metavar="COLUMN=DTYPE",
                help="The type of a column, such as x=float64; as often as needed.",
            ),
        ] = None,
        key: Annotated[
            str | None,
            typer.Option(metavar="COLUMN", help="Names a sample; default: a hash of its content."),
        ] = None,
        splits: Annotated[
            str | None,
            typer.Option(metavar="SPLITS", help="train=0.9,test=0.1; or a column that says it."),
        ] = None,
        by: Annotated[
            str | None,
            typer.Option(metavar="COLUMN", help="Rows with the same value stay together."),
        ] = None,
        bad: Annotated[
            str, typer.Option(metavar="WHAT", help="Bad records: fail, skip or quarantine.")
        ] = "fail",
        bad_share: Annotated[
            float, typer.Option(metavar="SHARE", help="How many may be skipped, of all.")
        ] = 0.01,
        dedupe: Annotated[
            bool, typer.Option("--dedupe", help="Of equal rows only the first stays.")
        ] = False,
        expect: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="What the version must meet; see `data expect`."),
        ] = None,
        workers: Annotated[
            int | None, typer.Option(min=0, metavar="N", help="Processes; default: by the work.")
        ] = None,
        fresh: Annotated[bool, typer.Option("--fresh", help="Run though it is known.")] = False,
    ) -> Answer:
        """Make a version of files as they are; only what changed since the last time is read."""
        from penstock.cli.progress import progress

        options = {
            "format": format, "columns": names(columns), "cast": casts(cast),
            "key": key, "splits": shares(splits), "by": by, "bad": bad, "bad_share": bad_share,
            "dedupe": "content" if dedupe else None,
            "expect": expect, "workers": workers, "fresh": fresh,
        }  # fmt: skip
        with progress(f"importing {name}", "units") as advance, in_words_of_options():
            found = home().import_data(name, files, advance, **options)
        return Answer(found, lambda draw: _draw_imported(draw, found))


@contextmanager
def in_words_of_options() -> Iterator[None]:
    """Remedies that name arguments of Python name the options of this command instead."""
    from penstock.base.errors import PenstockError

    try:
        yield
    except PenstockError as error:
        raise type(error)(as_options(error.what), as_options(error.fix), **error.facts) from None


def as_options(text: str) -> str:
    """
    >>> as_options('Leave them out: bad="skip"; or cast={"x": "float64", "y": "string"} holds.')
    'Leave them out: --bad skip; or --cast x=float64 --cast y=string holds.'
    """

    def casts_of(found: re.Match[str]) -> str:
        pairs = re.findall(r'"([^"]*)": "([^"]*)"', found[1])
        return " ".join(f"--cast {column}={dtype}" for column, dtype in pairs)

    return re.sub(r"cast=\{([^}]*)\}", casts_of, re.sub(r'\bbad="(\w+)"', r"--bad \1", text))


def shares(text: str | None) -> dict[str, float] | str | None:
    """Splits as the command line says them: shares, or the name of a column.

    >>> shares("train=0.9,test=0.1"), shares("fold"), shares(None)
    ({'train': 0.9, 'test': 0.1}, 'fold', None)
    """
    from penstock.base.errors import BadInput

    if text is None or "=" not in text:
        return text
    found: dict[str, float] = {}
    for part in text.split(","):
        split, _, share = part.partition("=")
        try:
            found[split.strip()] = float(share)
        except ValueError:
            raise BadInput(
                f'"{part}" is no split with a share', "Such as --splits train=0.9,test=0.1."
            ) from None
    return found


def casts(given: list[str] | None) -> dict[str, str] | None:
    """Types of columns as the command line says them.

    >>> casts(["x=float64", "a=b=string"]), casts(None)
    ({'x': 'float64', 'a=b': 'string'}, None)
    """
    from penstock.base.errors import BadInput

    found: dict[str, str] = {}
    for each in given or []:
        column, _, dtype = each.rpartition("=")
        if not column or not dtype:
            raise BadInput(f'"{each}" is no column with a type', "Such as --cast x=float64.")
        found[column] = dtype
    return found or None


def _draw_imported(draw: Drawing, found: Imported) -> None:
    draw.line(found.why)
    for note in found.notes:
        draw.line(note)
    told = ", ".join(f"{split} {rows:,}" for split, rows in found.splits.items())
    draw.line(f"{found.reference}: {found.rows:,} rows ({told})")


def _register_explain(app: typer.Typer) -> None:
    @command(
        app,
        "explain",
        ["penstock data explain train.py", "penstock data explain train.py --name digits lr=1e-3"],
    )
    def explain(
        script: Annotated[
            Path, typer.Argument(metavar="SCRIPT", help="The file that calls ps.prepare.")
        ],
        arguments: Annotated[
            list[str] | None, typer.Argument(metavar="ARGUMENT...", help="Passed to the script.")
        ] = None,
        name: Annotated[
            str | None, typer.Option(metavar="NAME", help="Only of this dataset.")
        ] = None,
    ) -> Answer:
        """What the script's preparations would run now, and why. Prepares and trains nothing.

        The script is run up to its first other verb (ps.train, …); each ps.prepare tells its plan.
        """
        plans = home().explain_data(script, arguments or [], name)
        return Answer(plans, lambda draw: _draw_plans(draw, plans))


def _draw_plans(draw: Drawing, plans: list[dict[str, Any]]) -> None:
    from rich.text import Text

    for plan in plans:
        draw.line(Text(plan["name"], style="bold"), f"  {plan['newest'] or 'no version yet'}")
        for line in plan["lines"]:
            draw.line(f"  {line}")
