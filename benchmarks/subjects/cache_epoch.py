"""cache_epoch.py JSON: one epoch in steps of 20 ms; prints what it waited for, as JSON.

home, url, digest; rank, world; window: rows; limit: bytes of the node's cache
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch  # noqa: F401 - what the loader imports on first use

from penstock.base.layout import Layout
from penstock.blobs import open_blobs
from penstock.data import Loader, ShardSource, read_manifest

STEP = 0.02  # seconds of work between two batches
BATCH = 64  # rows of each rank


def main():
    told = json.loads(sys.argv[1])
    blobs = open_blobs(told["url"])
    manifest = read_manifest(blobs, told["digest"])
    source = ShardSource(
        blobs, Layout(Path(told["home"])), manifest, "all", columns=["tokens"], limit=told["limit"]
    )
    loader = Loader.over(
        source,
        batch_size=BATCH * told["world"],
        shuffle="window",
        window_rows=told["window"],
        size=manifest.bytes,
        rank=told["rank"],
        world_size=told["world"],
        seed=1,
    )
    waits = []
    rows = 0
    batches = iter(loader)
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        waits.append(time.perf_counter() - asked)
        rows += len(batch["tokens"])
        time.sleep(STEP)
    found = source.counters()
    loader.close()
    fill = told["window"] // (BATCH * told["world"])  # steps of one window
    rest = waits[fill:]
    print(
        json.dumps(
            {
                "first": waits[0],
                "filling": sum(waits[:fill]),
                "share": 100 * sum(rest) / (STEP * len(rest)),
                "longest": 1e3 * max(rest),
                "rows": rows,
                "fetched": found.fetched,
                "evicted": found.evicted,
                "stalls": found.stalls,
            }
        )
    )


main()
