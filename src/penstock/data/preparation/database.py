"""DuckDB over files of its own, for orders of rows that memory need not hold; its errors in the
family's words."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from penstock.base.errors import BadInput, DiskFull, MissingExtra, PenstockError, Unavailable
from penstock.base.files import os_errors
from penstock.base.process import Identity

_PREFIX = "prepare-"  # then who owns the folder
_DOING = "sorting or joining rows"
_FULL = ("No space left", "Disk quota exceeded", "failed to offload")  # the last: its own limit


@contextmanager
def database(folder: Path) -> Iterator[Any]:
    """An empty database in a folder of its own below `folder`.

    It goes with the block, and what a killed process left there goes now.

    Raises MissingExtra, DiskFull, ReadOnly, Unavailable, and BadInput for values that cannot be
    compared.
    """
    try:
        import duckdb
    except ImportError:
        raise MissingExtra(
            "sorting and joining need DuckDB",
            'Install it: pip install "penstock[frames]".',
            extra="frames",
        ) from None
    with os_errors(_DOING, folder):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        mine = f"{_PREFIX}{str(Identity.mine()).replace('/', '+')}+"
        scratch = TemporaryDirectory(dir=folder, prefix=mine, ignore_cleanup_errors=True)
    with scratch:
        try:
            with duckdb.connect(str(Path(scratch.name) / "rows.duckdb")) as opened:
                opened.execute("SET preserve_insertion_order = false")
                yield opened
        except duckdb.Error as error:
            raise _told(duckdb, error, folder) from error


def _sweep(folder: Path) -> None:
    """Remove what those left who were killed here."""
    for found in folder.glob(f"{_PREFIX}*+*"):
        owner = found.name.removeprefix(_PREFIX).rpartition("+")[0].replace("+", "/")
        if Identity.parse(owner).is_dead():
            shutil.rmtree(found, ignore_errors=True)


def _told(duckdb: Any, error: Exception, folder: Path) -> PenstockError:
    text = str(error).partition("\n")[0]
    facts = {"path": str(folder), "error": str(error)}
    if any(each in text for each in _FULL):
        return DiskFull(
            f"no room left for {_DOING} in {folder}: {text}",
            "Free space there, or set `home` (PENSTOCK_HOME) to a disk with more; then run the "
            "same command again.",
            **facts,
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return Unavailable(
            f"no memory left for {_DOING}: {text}",
            "End what else needs memory, then run the same command again.",
            **facts,
        )
    if isinstance(error, duckdb.ConversionException | duckdb.BinderException):
        return BadInput(
            f"the columns of a join cannot be compared: {text}",
            "Give both sides columns of the same type.",
            **facts,
        )
    return Unavailable(
        f"{_DOING} in {folder} failed: {text}",
        "Look at the disk and the mount; `penstock doctor` helps. Then run again.",
        **facts,
    )
