"""`python prepare_penstock.py PICTURES HOME WORKERS [LOG]`: a line of JSON with what it took."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pictures

from penstock.base.settings import load_settings
from penstock.data.preparation import Progress, prepare
from penstock.jobs.stores import open_stores


def main() -> None:
    folder, home, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    params = {"log": sys.argv[4]} if len(sys.argv) > 4 else None
    units: list[Progress] = []
    marks: list[float] = []  # when each of `units` was told

    def on_progress(found: Progress) -> None:
        if found.stage == "units":
            units.append(found)
            marks.append(time.perf_counter())
            print(json.dumps({"done": found.done, "total": found.total}), flush=True)

    began = time.perf_counter()
    with open_stores(load_settings(folder=home, home=home, environment={})) as stores:
        made = prepare(
            stores,
            "pictures",
            {"given": folder, "format": "images", "columns": ["key", "image"]},
            map=pictures.row,
            splits={"all": 1},
            params=params,
            workers=workers,
            on_progress=on_progress,
        )
    ended = time.perf_counter()
    ran = units[-1].done - units[0].done if units else 0
    committed = next((at for at, found in zip(marks, units, strict=True) if found.done), ended)
    stages = {
        "call to units known": marks[0] - began,
        "to the first unit committed": committed - marks[0],
        "to the last unit committed": marks[-1] - committed,
        "shards and version": ended - marks[-1],
    }
    told = {
        "seconds": ended - began,
        "stages": stages,
        "rows": made.version.summary["rows"],
        "ran": ran,
    }
    print(json.dumps({**told, "total": units[-1].total if units else 0}))


if __name__ == "__main__":
    main()
