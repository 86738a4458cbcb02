"""`python prepare_ray.py PICTURES OUT WORKERS`: the same work with Ray Data; Ray's own start is not
counted."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    folder, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    import ray

    ray.init(address="local", num_cpus=workers, include_dashboard=False, logging_level="error",
             runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}})  # fmt: skip
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)

    def row(given: dict[str, Any]) -> dict[str, Any]:
        import pictures

        return {"key": given["path"], "image": pictures.shrink(given["bytes"])}

    began = time.perf_counter()
    found = ray.data.read_binary_files(folder, include_paths=True, file_extensions=["jpg"])
    found.map(row).write_parquet(out)
    took = time.perf_counter() - began
    import pyarrow.dataset

    rows = pyarrow.dataset.dataset(out).count_rows()
    ray.shutdown()
    print(json.dumps({"seconds": took, "rows": rows}))


if __name__ == "__main__":
    main()
