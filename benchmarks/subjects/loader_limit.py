"""The physical limit: `numpy.take` from memory maps, with row numbers that are there already."""

from __future__ import annotations

import loader_rows as data
import numpy as np


def main():
    folder, told = data.options()
    kind, rows = told["kind"], told["rows"]
    maps = data.memmaps(folder, kind, rows)
    order = np.random.default_rng(told["seed"]).permutation(rows)
    batch = data.BATCH[kind]

    def batches():
        while True:
            for start in range(0, rows - batch + 1, batch):
                wanted = order[start : start + batch]
                yield {name: np.take(each, wanted, axis=0) for name, each in maps.items()}

    data.measure(batches(), told)


if __name__ == "__main__":
    main()
