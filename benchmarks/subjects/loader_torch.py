"""torch's DataLoader over a map-style dataset of memory maps."""

from __future__ import annotations

import loader_rows as data
import torch
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __init__(self, maps):
        self.maps = maps

    def __len__(self):
        return len(self.maps["x"])

    def __getitem__(self, row):
        return {
            name: torch.from_numpy(each[row].copy()) if each.ndim > 1 else int(each[row])
            for name, each in self.maps.items()
        }


def main():
    folder, told = data.options()
    kind = told["kind"]
    dataset = Rows(data.memmaps(folder, kind, told["rows"]))
    loader = DataLoader(
        dataset, batch_size=data.BATCH[kind], shuffle=True, num_workers=told["workers"]
    )
    data.measure(data.forever(loader), told)


if __name__ == "__main__":
    main()
