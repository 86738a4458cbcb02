"""What `Dataset.to_torch()` gives to torch: imported only where torch is wanted."""

from __future__ import annotations

from typing import Any

from penstock.data.torchmap import SourceDataset


class RowsDataset(SourceDataset):
    """A map-style Dataset for any DataLoader: a batch is a list of samples, which torch's own
    default_collate stacks; its rows are still gathered at once."""

    def __getitems__(self, rows: list[int]) -> Any:
        columns = super().__getitems__(rows)
        return [{name: each[i] for name, each in columns.items()} for i in range(len(rows))]

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One sample: {name: tensor, or value}."""
        if not -len(self) <= row < len(self):
            raise IndexError(row)  # what ends a plain iteration
        sample: dict[str, Any] = self.__getitems__([row % len(self)])[0]
        return sample
