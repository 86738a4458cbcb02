"""shards.py URL SHARDS: writes rows int32[1025], 1024 a shard; prints the manifest."""

from __future__ import annotations

import sys

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
    blobs = open_blobs(sys.argv[1])
    shards = int(sys.argv[2])
    made = write_shards(blobs, blocks(shards), key="id", splits={"all": 1.0}, shard_rows=ROWS)
    manifest = write_manifest(
        blobs,
        columns=made.columns,
        key=made.key,
        splits=made.splits,
        shards=made.shards,
        statistics=made.statistics,
        lineage=Lineage("benchmarks:shards", "code"),
        checks=made.checks,
    )
    print(manifest.digest)


main()
