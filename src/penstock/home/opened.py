"""A dataset split as something to look into: rows, slices, an Arrow table."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores


class OpenedData:
    """Read on first use and kept while this object lives; nothing stays open."""

    def __init__(self, stores: Stores, reference: str, manifest: Any, split: str) -> None:
        self.reference = reference
        self.split = split
        self._manifest = manifest
        self._blobs = stores.blobs

    @classmethod
    def find(cls, stores: Stores, reference: str) -> OpenedData:
        """NotFound offers the nearest name; BadInput asks for a split where there are several."""
        from penstock import data

        with stores.meta.read() as meta:
            version, split = data.resolve(meta, reference)
        manifest = data.read_manifest(stores.blobs, version.digest)
        names = sorted(manifest.splits)
        if split is None and len(names) == 1:
            split = names[0]
        if split is None:
            raise BadInput(
                f"{version.reference} has several splits: {', '.join(names)}",
                f'Name one: ps.open("{version.reference}:{names[0]}").',
                reference=reference,
            )
        if split not in names:
            raise BadInput(
                f'{version.reference} has no split "{split}"', did_you_mean(split, names)
            )
        return cls(stores, f"{version.reference}:{split}", manifest, split)

    @cached_property
    def _table(self) -> Any:
        from penstock import data

        return data.read_split(self._blobs, self._manifest, self.split)

    def to_arrow(self) -> Any:
        """All rows as a `pyarrow.Table`."""
        return self._table

    @property
    def columns(self) -> list[str]:
        return list(self._table.column_names)

    def __len__(self) -> int:
        return int(self._manifest.splits[self.split].rows)

    @overload
    def __getitem__(self, where: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, where: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, where: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """A row as a dict, or a list of them for a slice."""
        if isinstance(where, slice):
            chosen = range(*where.indices(len(self)))
            rows: list[dict[str, Any]] = self._table.take(list(chosen)).to_pylist()
            return rows
        position = range(len(self))[where]  # IndexError and negative numbers as lists have them
        row: dict[str, Any] = self._table.slice(position, 1).to_pylist()[0]
        return row

    def __repr__(self) -> str:
        return f"<{self.reference}: {len(self)} rows>"
