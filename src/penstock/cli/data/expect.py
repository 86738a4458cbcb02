"""`penstock data expect|check`: what a version should look like, and whether one does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.base.errors import BadInput, Conflict, Refused
from penstock.cli.data.asked import Reference
from penstock.cli.frame import Answer, command, home

if TYPE_CHECKING:
    from penstock.cli.draw import Drawing
    from penstock.records.looks import DataExpectations, DataFindings

_STYLES = {"refuse": "bold red", "quarantine": "yellow", "warn": "yellow"}


def register(app: typer.Typer) -> None:
    """Put the commands under the noun."""
    _register_expect(app)
    _register_check(app)


def _register_expect(app: typer.Typer) -> None:
    @command(
        app,
        "expect",
        ["penstock data expect digits@3 --out digits.toml", "penstock data expect digits"],
    )
    def expect(
        reference: Reference,
        out: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Write it there; default: print it.")
        ] = None,
        force: Annotated[
            bool, typer.Option("--force", help="Replace the file if it is there.")
        ] = False,
    ) -> Answer:
        """What the next version should look like, inferred from this one: a file to edit."""
        if out is not None:
            _may_be_written(out, force=force)
        found = home().expect_data(reference)
        if out is not None:
            _write(out, found.toml, replace=force)
        return Answer(found, lambda draw: _draw_expected(draw, found, out))


def _may_be_written(out: Path, *, force: bool) -> None:
    """Said before anything is read. Raises BadInput, Conflict."""
    if out.is_dir():
        raise BadInput(f"{out} is a folder", "Name a file.", path=str(out))
    if not out.parent.is_dir():
        raise BadInput(
            f"there is no folder {out.parent}", "Make it, or name another file.", path=str(out)
        )
    if not force and os.path.lexists(out):
        raise _there(out)


def _there(out: Path) -> Conflict:
    return Conflict(
        f"{out} is there",
        "Name another file, or replace it with --force: what was edited in it goes.",
        path=str(out),
    )


def _write(out: Path, text: str, *, replace: bool) -> None:
    """Write a file whole; without `replace` never in the place of another."""
    import secrets

    from penstock.base.files import os_errors

    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    with os_errors("writing expectations", out.parent):
        try:
            draft.write_text(text, encoding="utf-8")
            if not replace:
                out.touch(exist_ok=False)  # the name is ours from here on
            draft.replace(out)
        except FileExistsError:
            raise _there(out) from None
        finally:
            draft.unlink(missing_ok=True)


def _draw_expected(draw: Drawing, found: DataExpectations, out: Path | None) -> None:
    if out is None:
        for line in found.toml.splitlines():
            draw.line(line)
        return
    draw.line(f"{out} has {found.rules} expectations, inferred from {found.reference}")
    draw.line("edit it, then: penstock data check, ps.prepare(expect=…), run.data(expect=…)")


def _register_check(app: typer.Typer) -> None:
    @command(
        app,
        "check",
        ["penstock data check digits digits.toml", "penstock data check digits@4 digits.toml"],
    )
    def check(
        reference: Reference,
        file: Annotated[
            Path, typer.Argument(metavar="FILE", help="As `penstock data expect` writes it.")
        ],
    ) -> Answer:
        """Hold every row against expectations; exit code 5 when one of them refuses."""
        from penstock.cli.progress import progress

        with progress(f"checking {reference}") as advance:
            found = home().check_data(reference, file, advance)
        return Answer(
            found, lambda draw: _draw_findings(draw, found), Refused.exit_code * found.refused
        )


def _draw_findings(draw: Drawing, found: DataFindings) -> None:
    """A line for each violation, its rows and samples below it."""
    from rich.text import Text

    word = "refused" if found.refused else "holds" if not found.violations else "holds, with notes"
    style = "bold red" if found.refused else "yellow" if found.violations else "green"
    told = f"  {found.rules} expectations, {found.rows:,} rows"
    draw.line(Text(found.reference, style="bold"), "  ", Text(word, style=style), told)
    for each in found.violations:
        severity = each["severity"]
        draw.line(
            Text(severity, style=_STYLES[severity]), f"  {each['expectation']}: {each['what']}"
        )
        for place, sample in zip(each["rows"], each["samples"], strict=True):
            draw.line(f"    {_place(place)}" + ("" if sample is None else f"  {sample}"))
        if (more := each["count"] - len(each["rows"])) > 0:
            draw.line(f"    and {more:,} more")


def _place(place: list[Any]) -> str:
    split, row, key = place
    return f"{split}[{row}]" + ("" if key is None else f" ({key})")
