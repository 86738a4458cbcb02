"""A dataset split as something to look into: rows, slices, an Arrow table."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

from penstock.base.errors import BadInput

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.data import Manifest
    from penstock.jobs.stores import Stores


class OpenedData:
    """One split. Shards are read, and verified, when rows are asked for; nothing stays open.

    reference  NAME@VERSION:SPLIT, what the asked reference meant
    """

    def __init__(self, blobs: Blobs, reference: str, manifest: Manifest, split: str) -> None:
        self.reference = reference
        self._blobs, self._manifest, self._split = blobs, manifest, split

    @classmethod
    def find(cls, stores: Stores, reference: str) -> OpenedData:
        """NotFound offers the nearest; BadInput asks for a split where there are several."""
        from penstock import data

        with stores.meta.read() as meta:
            version, split = data.resolve(meta, reference)
        manifest = data.read_manifest(stores.blobs, version.digest)
        if split is None:
            names = list(manifest.splits)
            raise BadInput(
                f"{version.reference} has several splits: {', '.join(names)}",
                f'Name one: ps.open("{version.reference}:{names[0]}").',
                reference=reference,
            )
        return cls(stores.blobs, f"{version.reference}:{split}", manifest, split)

    @cached_property
    def _table(self) -> Any:
        from penstock import data

        return data.read_split(self._blobs, self._manifest, self._split)

    def to_arrow(self) -> Any:
        """All rows as a `pyarrow.Table`, kept while this object lives."""
        return self._table

    def __len__(self) -> int:
        return self._manifest.split(self._split).rows

    @overload
    def __getitem__(self, where: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, where: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, where: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """A row as a dict, or a list of them for a slice, as lists have it."""
        if isinstance(where, int):
            at = range(len(self))[where]
            return self._rows(at, at + 1)[0]
        chosen = range(len(self))[where]
        if not chosen:
            return []
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
        rows = self._rows(low, high + 1)
        return [rows[at - low] for at in chosen]

    def _rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        from penstock import data

        if "_table" in self.__dict__:
            table = self._table.slice(start, stop - start)
        else:  # only the shards that hold them
            table = data.read_rows(self._blobs, self._manifest, self._split, start=start, stop=stop)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows

    def __repr__(self) -> str:
        return f"<{self.reference}: {len(self)} rows>"
