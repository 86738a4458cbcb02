"""Three datasets at three rates, and Penstock's windows over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import windows_data as data

from penstock.base.settings import load_settings
from penstock.data import Loader, ShardSource, prepare, read_manifest
from penstock.data.samples import Stream, Windows, over
from penstock.jobs.stores import open_stores

RATES = {"robot": 50, "force": 100, "camera": 10}
WINDOWS = Windows(
    history=data.STEPS,
    horizon=data.STEPS,
    history_columns=["state"],
    horizon_columns=["action"],
    streams={
        "force": Stream("force", history=data.STEPS, rate=RATES["force"]),
        "camera": Stream("camera", history=data.FRAMES, rate=RATES["camera"]),
    },
)


def table(name, episodes, rows):
    """All rows of one recorder, as columns."""
    columns = ("state", "action") if name == "robot" else (name,)
    found = [data.episode(number, rows) for number in range(episodes)]
    many = len(found[0][columns[0]])
    return {
        "id": np.arange(episodes * many),
        "episode": np.repeat(np.arange(episodes), many),
        "time": np.tile(np.arange(many) / RATES[name], episodes),
        **{each: np.concatenate([one[each] for one in found]) for each in columns},
    }


def main():
    folder, told = data.options()
    size = {"episodes": told["episodes"], "rows": told["rows"]}
    with open_stores(load_settings(folder=folder, home=folder / "home")) as stores:

        def source(name):
            params = {"name": name, **size}
            made = prepare(stores, name, table, key="id", splits={"all": 1}, params=params)
            manifest = read_manifest(stores.blobs, made.version.digest)
            return ShardSource(stores.blobs, stores.layout, manifest, "all")

        streams = {name: source(name) for name in WINDOWS.streams}
        kept = Path(stores.layout.root) / "cache" / "samples"
        windows = over(WINDOWS, source("robot"), streams=streams, folder=kept)
        torch.set_num_threads(2)
        loader = Loader.over(windows, batch_size=data.BATCH, epochs=100_000, seed=told["seed"])
        data.measure(loader, told["seconds"])


if __name__ == "__main__":
    main()
