"""neighbour_epoch.py JSON: one epoch as fast as it goes; prints seconds and bytes, as JSON.

home, url, digest, seed; neighbour: the file that says how to reach it, or ""
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch  # noqa: F401 - what the loader imports on first use

from penstock.base.layout import Layout
from penstock.blobs import open_blobs
from penstock.data import Loader, ShardSource, read_manifest

BATCH = 64
WINDOW = 4 * 1024  # rows


def main():
    told = json.loads(sys.argv[1])
    if told["neighbour"]:
        os.environ["PENSTOCK_NEIGHBOURS"] = told["neighbour"]
    blobs = open_blobs(told["url"])
    manifest = read_manifest(blobs, told["digest"])
    source = ShardSource(blobs, Layout(Path(told["home"])), manifest, "all", columns=["tokens"])
    loader = Loader.over(
        source,
        batch_size=BATCH,
        shuffle="window",
        window_rows=WINDOW,
        size=manifest.bytes,
        seed=told["seed"],
    )
    began = time.perf_counter()
    rows = sum(len(batch["tokens"]) for batch in loader)
    seconds = time.perf_counter() - began
    found = source.counters()
    loader.close()
    assert rows == manifest.split("all").rows, rows
    both = found.near + found.fetched
    print(
        json.dumps(
            {"seconds": seconds, "near": found.near, "fetched": found.fetched, "bytes": both}
        )
    )


main()
