"""Penstock: open, stand where the state says, first batch."""

from __future__ import annotations

import resume_rows as data

from penstock.base.settings import load_settings
from penstock.data import Loader, prepare, read_manifest
from penstock.jobs.stores import open_stores


def main():
    folder, told = data.options()
    with open_stores(load_settings(folder=folder, home=folder / "home")) as stores:
        made = prepare(
            stores, "rows", data.columns, key="id", splits={"all": 1}, params={"rows": told["rows"]}
        )

        def first(share):
            manifest = read_manifest(stores.blobs, made.version.digest)
            loader = Loader(
                stores.blobs, stores.layout, manifest, "all", batch_size=data.BATCH, columns=["x"]
            )
            loader.load_state({**loader.state(), "next": int(share * len(loader))})
            batches = iter(loader)
            next(batches)
            return batches, loader

        data.measure(first, told)


if __name__ == "__main__":
    main()
