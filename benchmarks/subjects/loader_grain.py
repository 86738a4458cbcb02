"""Grain: a random access source of memory maps, shuffled as a whole, batched."""

from __future__ import annotations

import grain
import loader_rows as data
import numpy as np


class Rows:
    def __init__(self, maps):
        self.maps = maps

    def __len__(self):
        return len(self.maps["x"])

    def __getitem__(self, row):
        return {name: np.array(each[row]) for name, each in self.maps.items()}


def main():
    folder, told = data.options()
    kind = told["kind"]
    source = Rows(data.memmaps(folder, kind, told["rows"]))
    rows = grain.MapDataset.source(source).seed(told["seed"]).shuffle().repeat()
    dataset = rows.batch(data.BATCH[kind]).to_iter_dataset()
    if told["workers"]:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=told["workers"]))
    data.measure(dataset, told)


if __name__ == "__main__":
    main()
