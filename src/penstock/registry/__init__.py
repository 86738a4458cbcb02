"""Model versions: packages, signatures, lineage, promotion, and models loaded to be called.

Nothing here loads torch, safetensors or ONNX before a call needs them.
"""

from penstock.registry.lineage import Lineage, Step, why
from penstock.registry.loading import LoadedModel, load, open_package
from penstock.registry.manifest import Package, read_package
from penstock.registry.packaging import Packaged, package
from penstock.registry.promotion import promote
from penstock.registry.signature import Signature, TensorSpec
from penstock.registry.weight_file import weights

__all__ = [
    "Lineage",
    "LoadedModel",
    "Package",
    "Packaged",
    "Signature",
    "Step",
    "TensorSpec",
    "load",
    "open_package",
    "package",
    "promote",
    "read_package",
    "weights",
    "why",
]
