"""The unit of `map_cluster`, and its two drivers, each a process of its own.

    map_units.py penstock ADDRESS COUNT FOLDER
    map_units.py ray-data ADDRESS COUNT FOLDER

A unit hashes for some milliseconds, and leaves one byte in FOLDER/executed, so that whoever looks
on counts executions. Prints {"seconds", "results": digest of all of them in order}.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_HASHES = 4000


def work(number: int, folder: str) -> str:
    at = os.open(f"{folder}/executed", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(at, b"x")
    os.close(at)
    digest = str(number).encode()
    for _ in range(_HASHES):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


def unit(payload: dict[str, Any], context: Any) -> dict[str, Any]:
    return {"value": work(payload["n"], context.shared["folder"])}


def penstock(address: str, count: int, folder: str) -> list[str]:
    from penstock.base.settings import load_settings
    from penstock.jobs.map import run_map
    from penstock.jobs.source import snapshot
    from penstock.jobs.stores import open_stores

    settings = load_settings(
        home=Path(folder) / "home",
        environment={},
        engine=f"ray:{address}",
        blobs=f"file://{folder}/blobs",
    )
    with open_stores(settings) as stores:
        source = snapshot(Path(__file__).parent, stores.blobs)
        units = {f"{n:06d}": {"n": n} for n in range(count)}
        found = run_map(
            stores, name="units", work="bench", function="map_units:unit", units=units,
            workers=64, shared={"folder": folder}, source=source,
        )  # fmt: skip
        return [found.results[key]["value"] for key in sorted(units)]


def ray_data(address: str, count: int, folder: str) -> list[str]:
    import ray
    import ray.data

    ray.init(address=address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    made = ray.data.range(count).map(
        lambda row: {"n": row["id"], "value": work(int(row["id"]), folder)}
    )
    return [row["value"] for row in sorted(made.take_all(), key=lambda row: row["n"])]


def main() -> None:
    which, address, count, folder = sys.argv[1:]
    began = time.perf_counter()
    found = {"penstock": penstock, "ray-data": ray_data}[which](address, int(count), folder)
    seconds = time.perf_counter() - began
    digest = hashlib.sha256("".join(found).encode()).hexdigest()
    print(json.dumps({"seconds": seconds, "results": digest}), flush=True)


if __name__ == "__main__":
    main()
