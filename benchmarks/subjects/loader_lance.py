"""Lance: `take` of each batch's rows, in a random order that is there already."""

from __future__ import annotations

import lance
import loader_rows as data
import numpy as np
import pyarrow as pa


def table(block, kind):
    if kind == "blobs":
        return pa.table({"x": pa.array([each.tobytes() for each in block["x"]], pa.binary())})
    flat = pa.array(block["x"].reshape(-1))
    columns = {"x": pa.FixedSizeListArray.from_arrays(flat, block["x"].shape[1])}
    return pa.table(columns | ({"y": pa.array(block["y"])} if "y" in block else {}))


def numpy_of(found, kind):
    x = found["x"].combine_chunks()
    if kind == "blobs":
        return {"x": x.to_pylist()}
    shape = (len(x), x.type.list_size)
    batch = {"x": x.flatten().to_numpy().reshape(shape)}
    return batch | ({"y": found["y"].to_numpy()} if "y" in found.column_names else {})


def main():
    folder, told = data.options()
    kind, rows = told["kind"], told["rows"]
    path = str(folder / "rows.lance")
    if not (folder / "written").exists():
        tables = (table(block, kind) for block in data.blocks(kind, rows))
        first = next(tables)
        lance.write_dataset(first, path)
        for each in tables:
            lance.write_dataset(each, path, mode="append")
        (folder / "written").touch()
    dataset = lance.dataset(path)
    order = np.random.default_rng(told["seed"]).permutation(rows)
    batch = data.BATCH[kind]

    def batches():
        while True:
            for start in range(0, rows - batch + 1, batch):
                yield numpy_of(dataset.take(order[start : start + batch].tolist()), kind)

    data.measure(batches(), told)


if __name__ == "__main__":
    main()
