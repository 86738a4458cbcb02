"""Penstock's loader over a prepared dataset: a random order of the whole."""

from __future__ import annotations

import loader_rows as data
import numpy as np

from penstock.base.settings import load_settings
from penstock.data import Loader, prepare, read_manifest
from penstock.jobs.stores import open_stores


def table(kind, rows):
    """All rows: columns; blobs one by one."""
    if kind == "blobs":
        return ({"id": row, **each} for row, each in enumerate(data.samples(kind, rows)))
    found = list(data.blocks(kind, rows))
    columns = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    return {"id": np.arange(rows), **columns}


def main():
    folder, told = data.options()
    kind = told["kind"]
    with open_stores(load_settings(folder=folder, home=folder / "home")) as stores:
        params = {"kind": kind, "rows": told["rows"]}
        made = prepare(stores, kind, table, key="id", splits={"all": 1}, params=params)
        manifest = read_manifest(stores.blobs, made.version.digest)
        loader = Loader(
            stores.blobs,
            stores.layout,
            manifest,
            "all",
            batch_size=data.BATCH[kind],
            epochs=100_000,
            columns=["x", "y"] if kind == "features" else ["x"],
            workers=told["workers"],
        )
        data.measure(loader, told)
        loader.close()


if __name__ == "__main__":
    main()
