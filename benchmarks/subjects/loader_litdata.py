"""LitData: its optimised chunks, shuffled, through its DataLoader."""

from __future__ import annotations

import loader_rows as data
import torch
from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
from litdata.streaming.cache import Cache


def together(samples):
    """Blobs stay a list."""
    return {"x": [bytes(each["x"]) for each in samples]}


def main():
    folder, told = data.options()
    kind = told["kind"]
    chunks = folder / "chunks"
    loads = TokensLoader(block_size=1025) if kind == "tokens" else None
    if not (folder / "written").exists():
        chunks.mkdir(exist_ok=True)
        cache = Cache(str(chunks), chunk_bytes=1 << 26, item_loader=loads)
        for row, sample in enumerate(data.samples(kind, told["rows"])):
            cache[row] = torch.from_numpy(sample["x"]) if kind == "tokens" else sample
        cache.done()
        cache.merge(1)
        (folder / "written").touch()
    dataset = StreamingDataset(str(chunks), shuffle=True, item_loader=loads)
    more = {"collate_fn": together} if kind == "blobs" else {}
    loader = StreamingDataLoader(
        dataset, batch_size=data.BATCH[kind], num_workers=told["workers"], **more
    )
    data.measure(data.forever(loader), told)


if __name__ == "__main__":
    main()
