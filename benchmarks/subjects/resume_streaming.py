"""MosaicML Streaming: its state names the sample; loaded into a new dataset and loader."""

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

import resume_rows as data  # noqa: E402
from streaming import MDSWriter, StreamingDataLoader, StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402


def main():
    folder, told = data.options()
    shards = folder / "shards"
    if not (folder / "written").exists():
        columns = {"x": f"ndarray:int32:{data.WIDTH}"}
        with MDSWriter(out=str(shards), columns=columns, size_limit=1 << 26) as writer:
            for row in data.columns(told["rows"])["x"]:
                writer.write({"x": row})
        (folder / "written").touch()
    clean_stale_shared_memory()

    def first(share):
        dataset = StreamingDataset(local=str(shards), shuffle=True, batch_size=data.BATCH)
        loader = StreamingDataLoader(dataset, batch_size=data.BATCH)
        samples = int(share * told["rows"] / data.BATCH) * data.BATCH
        loader.load_state_dict(dataset.state_dict(samples, False))
        batches = iter(loader)
        next(batches)
        return batches

    data.measure(first, told)


if __name__ == "__main__":
    main()
