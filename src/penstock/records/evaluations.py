"""A finished evaluation: immutable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Evaluation:
    """suite × model version × dataset version.

    key      digest of all that it depends on; the same key is never evaluated twice
    digest   of the report blob (metrics by slice, gates, predictions' digests)
    passed   the verdict: every gate passed
    summary  headline metrics and gates, for lists
    """

    id: str
    key: str
    suite: str
    model: str
    dataset: str
    digest: str
    passed: bool
    created_at: float
    summary: dict[str, Any] = field(default_factory=dict)
