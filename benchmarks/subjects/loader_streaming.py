"""MosaicML Streaming: MDS shards, shuffled, through its DataLoader."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec

# Its vision datasets, which nobody asks for here, import torchvision, whose compiled part does not
# load beside torch's build for the CPU.
for name in ("", ".datasets", ".transforms", ".transforms.functional"):
    sys.modules[f"torchvision{name}"] = module_from_spec(ModuleSpec(f"torchvision{name}", None))
sys.modules["torchvision.datasets"].VisionDataset = type("VisionDataset", (), {})
sys.modules["torchvision.transforms.functional"].to_tensor = None

import loader_rows as data  # noqa: E402
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402

COLUMNS = {
    "tokens": {"x": "ndarray:int32:1025"},
    "blobs": {"x": "bytes"},
    "features": {"x": "ndarray:float32:62", "y": "int"},
}


def together(samples):
    """Blobs stay a list."""
    return {"x": [each["x"] for each in samples]}


def main():
    folder, told = data.options()
    kind = told["kind"]
    shards = folder / "shards"
    if not (folder / "written").exists():
        with MDSWriter(out=str(shards), columns=COLUMNS[kind], size_limit=1 << 26) as writer:
            for sample in data.samples(kind, told["rows"]):
                writer.write(sample)
        (folder / "written").touch()
    clean_stale_shared_memory()
    batch = data.BATCH[kind]
    dataset = StreamingDataset(local=str(shards), shuffle=True, batch_size=batch)
    more = {"collate_fn": together} if kind == "blobs" else {}
    loader = StreamingDataLoader(dataset, batch_size=batch, num_workers=told["workers"], **more)
    data.measure(data.forever(loader), told)


if __name__ == "__main__":
    main()
