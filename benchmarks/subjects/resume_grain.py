"""Grain: the iterator's state, loaded into a new dataset's iterator."""

from __future__ import annotations

import grain
import numpy as np
import resume_rows as data


class Rows:
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return np.array(self.x[row])


def main():
    folder, told = data.options()
    source = Rows(data.memmap(folder, told["rows"]))

    def iterator():
        rows = grain.MapDataset.source(source).seed(1).shuffle()
        return iter(rows.batch(data.BATCH).to_iter_dataset())

    def first(share):
        batches = iterator()
        state = batches.get_state()
        batches.set_state({**state, "next_index": int(share * told["rows"] / data.BATCH)})
        next(batches)
        return batches

    data.measure(first, told)


if __name__ == "__main__":
    main()
