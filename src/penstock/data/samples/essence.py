"""What of a spec keys the order: every field that is not at its default, and nothing else.

So a field that a later Penstock adds changes no order that was there before, and a dataset that is
reached under another reference is the same dataset: its content counts, see `Source.identity`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

_NOT_CONTENT = {"source"}


def essence(spec: Any) -> dict[str, Any]:
    """JSON-able; equal for equal samples. 8 and 8.0 are one value."""
    found = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if field.name not in _NOT_CONTENT and value != default:
            found[field.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return essence(value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
