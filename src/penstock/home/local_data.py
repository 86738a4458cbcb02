"""The home on this machine, as far as dataset versions go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.home.views import VersionDetail, VersionView

if TYPE_CHECKING:
    from penstock.base.settings import Settings
    from penstock.home.data_port import Progress
    from penstock.jobs.stores import Stores
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


class LocalData:
    """A part of `LocalHome`, which has the stores."""

    settings: Settings

    @property
    def stores(self) -> Stores:
        raise NotImplementedError

    def datasets(self, name: str | None = None, limit: int = 100) -> list[VersionView]:
        from penstock.home import versions

        return versions.listed(self.stores, "dataset", name, limit)

    def dataset(self, reference: str) -> VersionDetail:
        from penstock.home import versions

        return versions.detail(self.stores, "dataset", reference)

    def data_rows(
        self,
        reference: str,
        limit: int = 10,
        start: int = 0,
        columns: Sequence[str] | None = None,
    ) -> DataRows:
        from penstock.home import data

        return data.rows(self.stores, reference, limit, start, columns)

    def data_stream(
        self,
        reference: str,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Iterator[bytes]:
        from penstock.home import data

        return data.stream(self.stores, reference, columns, start, stop)

    def data_statistics(self, reference: str) -> list[ColumnSummary]:
        from penstock.home import data

        return data.statistics(self.stores, reference)

    def diff_data(self, old: str, new: str | None = None) -> DataDiff:
        from penstock.home import data

        return data.diff(self.stores, old, new)

    def expect_data(self, reference: str) -> DataExpectations:
        from penstock.home import data

        return data.expect(self.stores, reference)

    def check_data(
        self, reference: str, file: str | Path, on_progress: Progress | None = None
    ) -> DataFindings:
        from penstock.home import data

        return data.check(self.stores, reference, file, on_progress)

    def data_lineage(self, reference: str) -> Ancestor:
        from penstock.home import data

        return data.lineage(self.stores, reference)

    def verify_data(self, reference: str, on_progress: Progress | None = None) -> DataVerdict:
        from penstock.home import data

        return data.verify(self.stores, reference, on_progress)

    def export_data(
        self,
        reference: str,
        folder: Path,
        format: str = "parquet",
        columns: Sequence[str] | None = None,
        on_progress: Progress | None = None,
    ) -> Exported:
        from penstock.home import data

        return data.export(self.stores, reference, folder, format, columns, on_progress)

    def import_data(
        self,
        name: str,
        files: Sequence[str],
        on_progress: Progress | None = None,
        **options: Any,
    ) -> Imported:
        from penstock.home import data

        return data.import_files(self.stores, name, files, options, on_progress)

    def explain_data(
        self, script: Path, arguments: Sequence[str] = (), name: str | None = None
    ) -> list[dict[str, Any]]:
        from penstock.home import explaining

        return explaining.explained(self.settings.home, script, arguments, name)

    def move_data_alias(self, reference: str, alias: str, expect: int | None = None) -> Alias:
        from penstock.home import data

        return data.move_alias(self.stores, reference, alias, expect)

    def tag_data(
        self, reference: str, add: Sequence[str] = (), remove: Sequence[str] = ()
    ) -> list[str]:
        from penstock.home import data

        return data.tag(self.stores, reference, add, remove)

    def retire_data(
        self, name: str | None = None, keep: int | None = None, apply: bool = True
    ) -> Retired:
        from penstock.home import retention

        keep = self.settings.keep_versions if keep is None else keep
        return retention.retire(self.stores, name, keep, dry_run=not apply)
