"""`python prepare_tables.py RAW HOME LOG UNIT_BYTES`: CSV files through a step with two workers.

LOG gets a line per batch: the numbers of its files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from penstock.base.settings import load_settings
from penstock.data.preparation import prepare
from penstock.jobs.stores import open_stores


def features(columns: dict[str, Any], log: str = "") -> dict[str, Any]:
    with Path(log).open("a") as file:
        file.write("".join(f"{number}\n" for number in np.unique(columns["id"] // 1000)))
    x = columns["x"]
    return {"id": columns["id"], "x": x, "sine": np.sin(x), "square": x * x}


def main() -> None:
    raw, home, log, unit_bytes = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    with open_stores(load_settings(folder=home, home=home, environment={})) as stores:
        made = prepare(
            stores,
            "tables",
            raw,
            batch=features,
            key="id",
            params={"log": log},
            workers=2,
            unit_bytes=unit_bytes,
        )
        print(made.reference, made.why)


if __name__ == "__main__":
    main()
