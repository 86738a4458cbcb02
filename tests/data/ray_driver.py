"""A driver of Ray for tests: `python ray_driver.py PART FOLDER`; prints what it found as JSON.

Blobs lie in FOLDER/blobs, the home is FOLDER/home; the cluster is that of RAY_ADDRESS.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from penstock.base.errors import PenstockError
from penstock.base.settings import load_settings
from penstock.data.dataset import open_dataset
from penstock.data.manifest import read_manifest
from penstock.data.preparation import Prepared, prepare
from penstock.jobs.stores import Stores, open_stores

SPLITS = {"train": 0.8, "test": 0.2}


def table(rows: int = 1000) -> pa.Table:
    at = np.arange(rows)
    pixels = (at[:, None, None] + np.zeros((1, 2, 3))).astype(np.float32)
    image = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pixels))
    return pa.table({"id": at, "name": [f"n{i}" for i in at], "image": image})


def shuffled(rows: int = 1000, blocks: int = 5) -> Any:
    order = np.random.default_rng(blocks).permutation(rows)
    return ray.data.from_arrow(table(rows).take(pa.array(order))).repartition(blocks)


def contents(stores: Stores, made: Prepared) -> dict[str, Any]:
    found = read_manifest(stores.blobs, made.version.digest)
    return {name: [each.rows, each.digest] for name, each in found.splits.items()}


def error_of(call: Any) -> dict[str, Any]:
    try:
        call()
    except PenstockError as error:
        return error.as_dict()
    return {}


def writing(stores: Stores) -> dict[str, Any]:
    made = prepare(stores, "rays", shuffled(), key="id", splits=SPLITS)
    again = prepare(stores, "rays", shuffled(blocks=2), key="id", splits=SPLITS)
    told = prepare(stores, "plain", table, key="id", splits=SPLITS)
    keyless = prepare(stores, "keyless", shuffled(50), splits={"all": 1})
    plain = prepare(stores, "plain-keyless", lambda: table(50), splits={"all": 1})
    both = ({row["key"]: row["id"] for row in open_dataset(stores, each.reference)}
            for each in (keyless, plain))  # fmt: skip
    one, other = both
    return {
        "same": contents(stores, made) == contents(stores, told),
        "reused": again.reused,
        "why": again.why,
        "content keys": one == other and list(one) == sorted(one),
        "twice": error_of(
            lambda: prepare(
                stores, "bad", shuffled(10).union(shuffled(10)), key="id", splits={"all": 1}
            )
        ),
        "missing": error_of(
            lambda: prepare(
                stores, "bad", ray.data.from_arrow(pa.table({"id": [1, None, 3]})), key="id"
            )
        ),
        "nested": error_of(
            lambda: prepare(
                stores, "bad", ray.data.from_items([{"id": 1, "s": {"a": 1}}]), key="id"
            )
        ),
        "options": error_of(
            lambda: prepare(stores, "bad", shuffled(10), key="id", filter=len, workers=1)
        ),
        "versions": versions(stores),
    }


def reading(stores: Stores) -> dict[str, Any]:
    from penstock.data.preparation import storing

    storing.SHARD_ROWS = 256

    four = table().select(["id", "image"])
    prepare(stores, "four", lambda: four, key="id", splits={"all": 1}, workers=0)
    data = open_dataset(stores, "four")
    found = data.to_ray()
    batch = next(iter(found.iter_batches(batch_size=4)))
    part = data.select(["id"], 300, 700).to_ray()
    return {
        "blocks": found.materialize().num_blocks(),
        "rows": found.count(),
        "columns": found.schema().names,
        "image": list(batch["image"].shape),
        "sum": found.sum("id"),
        "part": [part.count(), part.min("id"), part.max("id"), *part.schema().names],
        "selected": found.select_columns(["id"]).sum("id"),
        "tasks": read_tasks(data),
    }


def read_tasks(data: Any) -> list[Any]:
    """The columns that tasks read when Ray Data wants one."""
    from penstock.data.rays import source_of

    source = source_of(data, "file:///nowhere", [(0, 0, 256)])
    (task,) = source.apply_projection({"id": "id"}).get_read_tasks(1)
    return list(task.schema.names)


def dying(stores: Stores) -> dict[str, Any]:
    """A worker kills itself in the midst of a block, once."""
    flag = Path(sys.argv[2]) / "flag"

    def deadly(batch: pa.Table) -> pa.Table:
        if not flag.exists():
            import os
            import signal

            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    rows = shuffled().map_batches(deadly, batch_format="pyarrow")
    made = prepare(stores, "rays", rows, key="id", splits=SPLITS)
    told = prepare(stores, "plain", table, key="id", splits=SPLITS)
    return {
        "died": flag.exists(),
        "same": contents(stores, made) == contents(stores, told),
        "versions": versions(stores),
    }


def versions(stores: Stores) -> list[str]:
    with stores.meta.read() as meta:
        return sorted(each.reference for each in meta.versions("dataset"))


if __name__ == "__main__":
    ray.init(logging_level="error", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    folder = sys.argv[2]
    settings = load_settings(
        folder=Path(folder), home=Path(folder) / "home", blobs=f"file://{folder}/blobs"
    )
    with open_stores(settings) as opened:
        print("FOUND" + json.dumps(globals()[sys.argv[1]](opened)))
