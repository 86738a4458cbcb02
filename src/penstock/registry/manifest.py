"""The manifest of a model package: a blob of canonical JSON that names all the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.base.errors import Damaged
from penstock.blobs.port import Blobs
from penstock.records import from_json
from penstock.registry.signature import Signature

FORMAT = 1


@dataclass(frozen=True, slots=True)
class File:
    """One file of a package.

    digest  of its blob
    bytes   its size
    facts   e.g. max_difference of the ONNX file from the model it was made of
    """

    digest: str
    bytes: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an input goes in a call of the model.

    name        the input's name in the signature
    parameter   the parameter of `forward` that takes it
    positional  `forward` takes it by position only
    """

    name: str
    parameter: str
    positional: bool = False


@dataclass(frozen=True, slots=True)
class Package:
    """What a model version is made of. Holds no time, so equal models give equal manifests.

    files        "weights" (safetensors, always); "program" (torch.export) and "onnx" where the
                 model converts; "example" (safetensors: `input.NAME`, `output.NAME`, what the
                 model gave for the example when it was published)
    places       for each input, the parameter of the class's `forward` that takes it
    entry        "module:qualname" of the model's class; None when it has no such name
    source       digest of the source snapshot that has the class; None when there is none
    tied         weights that are stored once: name -> the name whose bytes it shares
    environment  versions of what made it
    notes        what did not convert, why, and what is published instead
    lineage      as given: "run", "data", …
    """

    format: int
    name: str
    signature: Signature
    files: dict[str, File]
    places: tuple[Place, ...]
    entry: str | None = None
    source: str | None = None
    tied: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lineage: dict[str, Any] = field(default_factory=dict)


def read_package(blobs: Blobs, digest: str) -> Package:
    """The manifest that `digest` names. Raises NotFound, Damaged."""
    package = from_json(Package, blobs.get(digest))
    if package.format != FORMAT:
        raise Damaged(
            f"model package {digest} has format {package.format}, this Penstock reads {FORMAT}",
            "Use the version of Penstock that wrote it, or a newer one.",
            digest=digest,
            format=package.format,
        )
    return package
