"""A model rebuilt from its class in the source snapshot and its weights.

The fallback for what neither ONNX nor torch.export can express. It runs the project's own source,
as resuming the run would; nothing is unpickled.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput
from penstock.base.layout import Layout
from penstock.blobs.port import Blobs
from penstock.jobs.source import import_paths, load, materialise
from penstock.registry import apart
from penstock.registry.manifest import Package
from penstock.registry.weight_file import weights_in


def rebuild(blobs: Blobs, layout: Layout, package: Package, config: Any) -> Any:
    """The module in eval mode with its weights. Raises BadInput when it cannot be constructed."""
    assert package.entry is not None and package.source is not None
    folder = materialise(package.source, blobs, layout.sources)
    with _first(import_paths(package.source, blobs, folder)):
        kind = load(package.entry)
    try:
        if config is None:
            model = kind()
        else:
            model = kind(**config) if isinstance(config, dict) else kind(config)
    except Exception as error:
        raise BadInput(
            f"{package.entry} cannot be constructed: {apart.first_line(error)}",
            "Pass its arguments: load(…, config={…}), or give each of them a default.",
            entry=package.entry,
        ) from error
    _fill(model, package, weights_in(blobs, package))
    return model.eval().requires_grad_(False)


def _fill(model: Any, package: Package, weights: dict[str, Any]) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise BadInput(
            f"the weights do not fit {package.entry} as it was constructed: "
            f"{' '.join(str(error).split())[:300]}",
            "Pass the config that it was trained with: load(…, config={…}).",
            entry=package.entry,
        ) from None


@contextmanager
def _first(folders: list[Path]) -> Iterator[None]:
    """Import from `folders`, leaving no trace: modules of the same names that this process already
    has stay what they are. What the class imports later, inside its functions, is not covered."""
    ours = {each.stem for folder in folders if folder.is_dir() for each in folder.iterdir()}
    ours.discard("penstock")  # the snapshot of Penstock's own project

    def take() -> dict[str, Any]:
        mine = [name for name in sys.modules if name.partition(".")[0] in ours]
        return {name: sys.modules.pop(name) for name in mine}

    before, path = take(), list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        yield
    finally:
        take()
        sys.modules.update(before)
        sys.path[:] = path
