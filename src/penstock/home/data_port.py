"""The part of a home's port that is about dataset versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from penstock.home.views import VersionDetail, VersionView
from penstock.records import Alias
from penstock.records.looks import (
    Ancestor,
    ColumnSummary,
    DataDiff,
    DataExpectations,
    DataFindings,
    DataRows,
    DataVerdict,
    Exported,
    Imported,
    Retired,
)

Progress = Callable[[int, int], None]  # done, in all


class DataHome(Protocol):
    """A reference is NAME[@VERSION-OR-ALIAS], with :SPLIT where rows are meant. Every call raises
    NotFound, which offers the nearest, for what is not there."""

    def datasets(self, name: str | None = None, limit: int = 100) -> list[VersionView]:
        """Newest first; of one name when it is given."""
        ...

    def dataset(self, reference: str) -> VersionDetail: ...

    def data_rows(
        self,
        reference: str,
        limit: int = 10,
        start: int = 0,
        columns: Sequence[str] | None = None,
    ) -> DataRows:
        """Rows of a split (the first one where none is said), large values summarised."""
        ...

    def data_stream(
        self,
        reference: str,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[bytes]:
        """The same rows whole, as an Arrow IPC stream in pieces."""
        ...

    def data_statistics(self, reference: str) -> list[ColumnSummary]:
        """Every column over the whole version, with a histogram where there is one."""
        ...

    def diff_data(self, old: str, new: str | None = None) -> DataDiff:
        """Rows added, removed and changed by key, columns, drift; `new` by default the newest."""
        ...

    def expect_data(self, reference: str) -> DataExpectations:
        """What the next version should look like, inferred from this one."""
        ...

    def check_data(
        self, reference: str, file: str | Path, on_progress: Progress | None = None
    ) -> DataFindings:
        """Hold every row of a version against a file of expectations; progress counts rows.

        BadInput for a wrong file.
        """
        ...

    def data_lineage(self, reference: str) -> Ancestor:
        """What it was made from, down to files and functions."""
        ...

    def verify_data(self, reference: str, on_progress: Progress | None = None) -> DataVerdict:
        """Read every byte and compare it with its hash; progress counts bytes."""
        ...

    def export_data(
        self,
        reference: str,
        folder: Path,
        format: str = "parquet",
        columns: Sequence[str] | None = None,
        on_progress: Progress | None = None,
    ) -> Exported:
        """Write files into a folder of this machine that appears whole; progress counts rows.

        Conflict when the folder is there, BadInput for columns that the format cannot hold.
        """
        ...

    def import_data(
        self,
        name: str,
        files: Sequence[str],
        on_progress: Progress | None = None,
        **options: Any,
    ) -> Imported:
        """Make a version of files of this machine (paths, folders, globs, URLs), or find it.

        options  format, columns and cast of the files; key, splits (name -> share, or a column),
                 by, bad, bad_share, dedupe, expect (a file), workers, fresh as `ps.prepare` has
                 them
        Progress counts units.
        """
        ...

    def explain_data(
        self, script: Path, arguments: Sequence[str] = (), name: str | None = None
    ) -> list[dict[str, Any]]:
        """What the preparations of a script would run now, and why; see `explaining.py`."""
        ...

    def move_data_alias(self, reference: str, alias: str, expect: int | None = None) -> Alias:
        """Point an alias at a version by compare-and-swap.

        expect  the version that it points at now, 0 for none; Conflict otherwise
        """
        ...

    def tag_data(
        self, reference: str, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> list[str]:
        """Give and take labels; returns those that the version has then."""
        ...

    def retire_data(
        self, name: str | None = None, keep: int | None = None, apply: bool = True
    ) -> Retired:
        """Drop older versions that nothing needs; with `apply=False` only say which.

        keep  how many of them stay, of each name; default: the setting `keep_versions`
        """
        ...
