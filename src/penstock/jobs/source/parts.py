"""A code identity: its parts by name, and the difference of two, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PACKAGE = "package "  # prefix of the parts whose value is a version


@dataclass(frozen=True, slots=True)
class CodeIdentity:
    """digest  of all parts
    parts   "train.Net" -> digest of its code; "package torch" -> version
    """

    digest: str
    parts: dict[str, str] = field(default_factory=dict)


def difference(old_parts: Mapping[str, str], new_parts: Mapping[str, str]) -> list[str]:
    """Lines for people: "train.Net changed", "package torch 2.12 became 2.13"; [] when equal."""
    lines: list[str] = []
    for name in sorted({*old_parts, *new_parts}):
        old, new = old_parts.get(name), new_parts.get(name)
        if old == new:
            continue
        if old is None:
            lines.append(f"{name} is new")
        elif new is None:
            lines.append(f"{name} is no longer used")
        elif name.startswith(PACKAGE):
            lines.append(f"{name} {old} became {new}")
        else:
            lines.append(f"{name} changed")
    return lines
