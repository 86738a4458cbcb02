"""Versions of datasets and models: a row that names a manifest, aliases that move, labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["dataset", "model"]


@dataclass(frozen=True, slots=True)
class Version:
    """A committed version. Immutable.

    digest    of the manifest blob
    producer  idempotency key: the same producer gives the same version, e.g. "run/ID"
    summary   what lists show without reading the manifest (rows, splits, bytes, signature, …)
    """

    kind: Kind
    name: str
    version: int
    digest: str
    producer: str
    created_at: float
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Alias:
    """A name for a version that may move; `revision` is what compare-and-swap compares."""

    kind: Kind
    name: str
    alias: str
    version: int
    revision: int
    moved_at: float
    reason: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tag:
    """A free label of a version; it never moves, several versions may have the same one."""

    kind: Kind
    name: str
    version: int
    tag: str
    made_at: float
