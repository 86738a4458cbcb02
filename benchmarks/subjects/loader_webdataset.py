"""WebDataset: tar shards, their order shuffled, then samples in a buffer of 1,000."""

from __future__ import annotations

import loader_rows as data
import numpy as np
import torch
import webdataset as wds

PER_SHARD = {"tokens": 8000, "blobs": 600, "features": 50_000}


def main():
    folder, told = data.options()
    kind = told["kind"]
    if not (folder / "written").exists():
        with wds.ShardWriter(f"{folder}/%05d.tar", maxcount=PER_SHARD[kind], verbose=0) as writer:
            for row, sample in enumerate(data.samples(kind, told["rows"])):
                raw = sample["x"] if kind == "blobs" else sample["x"].tobytes()
                y = {"y.cls": sample["y"]} if "y" in sample else {}
                writer.write({"__key__": f"{row:09}", "x.bin": raw, **y})
        (folder / "written").touch()

    def decoded(sample):
        if kind == "blobs":
            return (sample["x.bin"],)
        if kind == "tokens":
            return (torch.from_numpy(np.frombuffer(sample["x.bin"], np.int32).copy()),)
        x = torch.from_numpy(np.frombuffer(sample["x.bin"], np.float32).copy())
        return x, int(sample["y.cls"])

    shards = sorted(str(path) for path in folder.glob("*.tar"))
    dataset = wds.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
    dataset = dataset.shuffle(1000).map(decoded).batched(data.BATCH[kind])
    loader = wds.WebLoader(dataset, batch_size=None, num_workers=told["workers"])
    data.measure(data.forever(loader), told)


if __name__ == "__main__":
    main()
