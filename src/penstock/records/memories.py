"""What a call gave, remembered by what it depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Memory:
    """key   digest of all that the value depends on
    kind  whose it is: "dataset", "unit", "rows", "digests", "predictions"
    """

    key: str
    kind: str
    value: dict[str, Any]
    created_at: float
