"""The weights of a package as a state dictionary: for those who have the model's class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.blobs.port import Blobs
from penstock.registry.manifest import Package, read_package

if TYPE_CHECKING:
    from torch import Tensor


def weights(blobs: Blobs, digest: str) -> dict[str, Tensor]:
    """Names and tensors, on the CPU, of the package that `digest` names; tied ones under each name.

    Raises NotFound, Damaged.
    """
    return weights_in(blobs, read_package(blobs, digest))


def weights_in(blobs: Blobs, package: Package) -> dict[str, Tensor]:
    """As `weights`, of a package that was read already."""
    import safetensors.torch

    found = safetensors.torch.load(blobs.get(package.files["weights"].digest))
    return found | {name: found[other] for name, other in package.tied.items()}
