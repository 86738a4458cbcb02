"""One digest for a model's weights, so that two runs can be compared in a line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.base.hashing import Hasher, canonical_json
from penstock.checkpoints.arrays import cannot_travel, numpy_bytes, torch_bytes
from penstock.checkpoints.state import encode


def weights_digest(state_dict: Mapping[str, Any]) -> str:
    """SHA-256 over the tensors and arrays of a state dict, in the order of their names.

    For each: the canonical JSON of [name, dtype, shape], a line feed, then its bytes in row-major
    order. Where a tensor lies (device, strides, shared memory) makes no difference.
    Raises CannotTravel for a value that is neither tensor nor array.
    """
    hasher = Hasher()
    for name in sorted(state_dict):
        encoded = encode(state_dict[name], name)
        if len(encoded.entries) != 1 or encoded.structure != {"entry": 0}:
            raise cannot_travel(name, "weights are tensors and arrays only")
        if encoded.shardings:
            raise cannot_travel(name, "it is distributed; gather it first: DTensor.full_tensor()")
        (entry,), (source,) = encoded.entries, encoded.sources
        hasher.update(canonical_json([name, entry.dtype, list(entry.shape)]) + b"\n")
        if entry.nbytes:
            tensor = entry.kind == "tensor"
            flat = torch_bytes(source).cpu().numpy() if tensor else numpy_bytes(source)
            hasher.update(flat.data)
    return hasher.digest
