"""`python prepare_bare.py PICTURES OUT WORKERS`: the same work without any framework: processes
that share out a list of files and write Arrow IPC files of 64 MiB, flushed to disk."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pictures
import pyarrow as pa


def part(paths: list[Path], root: Path, out: Path) -> None:
    full = (64 << 20) // (pictures.SIZE * pictures.SIZE * 3)
    for start in range(0, len(paths), full):
        some = paths[start : start + full]
        images = np.stack([pictures.shrink(path.read_bytes()) for path in some])
        flat = pa.array(images.reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(flat, images[0].size)
        keys = pa.array([path.relative_to(root).as_posix() for path in some])
        table = pa.table({"key": keys, "image": lists})
        with (out / f"{os.getpid()}-{start}.arrow").open("wb") as stream:
            with pa.ipc.new_file(stream, table.schema) as writer:
                writer.write_table(table)
            stream.flush()
            os.fsync(stream.fileno())


def main() -> None:
    root, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    began = time.perf_counter()
    paths = sorted(root.rglob("*.jpg"))
    children = []
    for number in range(workers):
        child = os.fork()
        if child == 0:
            share = -(-len(paths) // workers)
            part(paths[number * share : (number + 1) * share], root, out)
            os._exit(0)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1]]
    assert not failed
    print(json.dumps({"seconds": time.perf_counter() - began, "rows": len(paths)}))


if __name__ == "__main__":
    main()
