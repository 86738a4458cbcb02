"""cache_data.py FOLDER SHARDS: writes rows int32[1025], 1024 a shard; prints the manifest."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from penstock.blobs import open_blobs
from penstock.data.manifest import Lineage, write_manifest
from penstock.data.shards import write_shards

ROWS = 1024


def blocks(shards):
    for number in range(shards):
        chance = np.random.default_rng(number)
        for row in range(ROWS):
            tokens = chance.integers(0, 50_000, 1025, dtype=np.int32)
            yield {"id": number * ROWS + row, "tokens": tokens}


def main():
    folder, shards = Path(sys.argv[1]), int(sys.argv[2])
    blobs = open_blobs(f"file://{folder}/blobs")
    made = write_shards(blobs, blocks(shards), key="id", splits={"all": 1.0}, shard_rows=ROWS)
    manifest = write_manifest(
        blobs,
        columns=made.columns,
        key=made.key,
        splits=made.splits,
        shards=made.shards,
        statistics=made.statistics,
        lineage=Lineage("benchmarks:cache", "code"),
        checks=made.checks,
    )
    print(manifest.digest)


main()
