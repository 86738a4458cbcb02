"""Samples that are not rows: windows over episodes, packed documents, batches of like length.

A spec (`Windows`, `Pack`, `Buckets`) is a frozen dataclass and part of the data specification:
it says what a sample is, JSON keeps it, and the order's identity changes with it. `over` makes a
`Source` of it, which a loader shuffles, resumes and shards over ranks like any other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.data.samples.buckets import Buckets, BucketSource
    from penstock.data.samples.packing import Pack, PackSource
    from penstock.data.samples.specs import Samples, over, references, spec_from_json, spec_to_json
    from penstock.data.samples.windowing import WindowSource
    from penstock.data.samples.windows import Stream, Windows

_WHERE = {
    "BucketSource": "buckets",
    "Buckets": "buckets",
    "Pack": "packing",
    "PackSource": "packing",
    "Samples": "specs",
    "Stream": "windows",
    "WindowSource": "windowing",
    "Windows": "windows",
    "over": "specs",
    "references": "specs",
    "spec_from_json": "specs",
    "spec_to_json": "specs",
}

__all__ = [
    "BucketSource",
    "Buckets",
    "Pack",
    "PackSource",
    "Samples",
    "Stream",
    "WindowSource",
    "Windows",
    "over",
    "references",
    "spec_from_json",
    "spec_to_json",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
