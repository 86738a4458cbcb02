"""start_read.py FOLDER DIGEST: from the URL of the store to the first batch; prints JSON."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import numpy as np
import numpy.ma
import torch

import penstock.blobs.local
import penstock.records.codec  # noqa: F401
from penstock.base.layout import Layout
from penstock.blobs import open_blobs
from penstock.data import Loader, read_manifest

BATCH = 256


def private():
    """Bytes of memory that are this process's own: pages of mapped shards are the page cache's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def warm_imports(folder):
    """What is imported on first use is imported here: pydantic, torch's first tensors."""
    from penstock.data.manifest import _Stored
    from penstock.records.codec import _adapter

    _adapter(_Stored)
    torch.from_numpy(np.zeros(3))


def main():
    folder, digest = Path(sys.argv[1]), sys.argv[2]
    warm_imports(folder)
    gc.collect()
    before = private()
    busy = time.process_time()
    began = time.perf_counter()
    blobs = open_blobs(f"file://{folder}/blobs")
    manifest = read_manifest(blobs, digest)
    opened = time.perf_counter()
    loader = Loader(
        blobs, Layout(folder), manifest, "train", batch_size=BATCH, shuffle="window", seed=1
    )
    made = time.perf_counter()
    batches = iter(loader)  # kept: closing it would wait for the batches behind
    batch = next(batches)
    first = time.perf_counter()
    busy = time.process_time() - busy
    if batch["x"].shape != (BATCH, 8):
        raise SystemExit("not a batch")
    print(
        json.dumps(
            {
                "total": 1e3 * (first - began),
                "manifest": 1e3 * (opened - began),
                "loader": 1e3 * (made - opened),
                "batch": 1e3 * (first - made),
                "processor": 1e3 * busy,
                "memory": (private() - before) / 1e6,
            }
        )
    )


main()
