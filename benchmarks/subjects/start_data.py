"""start_data.py FOLDER SHARDS ROWS: writes a version whose shards are a few blobs, again and again.

The manifest is real: a row per shard, ordered, each with its digest; only the bytes are shared, so
that a billion rows take 50 MB of disk. Prints the manifest's digest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.base.hashing import digest_bytes
from penstock.blobs import open_blobs
from penstock.data.at_rest import store_shard
from penstock.data.columns import Column, described, tensor_array
from penstock.data.manifest import Lineage, Split, write_manifest

DISTINCT = 16
COLUMNS = [Column("x", "tensor", "float32", (8,)), Column("y", "number", "int64")]


def main():
    folder, shards, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    blobs = open_blobs(f"file://{folder}/blobs")
    stored = []
    for number in range(DISTINCT):
        x = np.random.default_rng(number).random((rows, 8), np.float32)
        table = pa.table({"x": tensor_array(x), "y": np.arange(rows) + number * rows})
        stored.append(store_shard(blobs, described(table, COLUMNS), COLUMNS))
    turns = [stored[number % DISTINCT] for number in range(shards)]
    table = pa.table(
        {
            "split": pa.repeat("train", shards),
            "number": pa.array(np.arange(shards)),
            "digest": pa.array([each.digest for each in turns]),
            "rows": pa.repeat(rows, shards),
            "bytes": pa.array([each.bytes for each in turns]),
            "format": pa.array([each.format for each in turns]),
        }
    )
    size = sum(each.bytes for each in turns)
    content = digest_bytes(b"a billion rows")
    made = write_manifest(
        blobs,
        columns=COLUMNS,
        key="y",
        splits=[Split("train", rows * shards, shards, size, 1.0, content)],
        shards=table,
        statistics={},
        lineage=Lineage("benchmarks:loader_start", "code"),
        checks={},
    )
    print(made.digest)


main()
