"""Ownership for a time, with a generation that fences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """Who owns `key`. Every take increments `generation`; commits check it, clocks never do.

    holder      text of a `base.process.Identity`
    expires_at  seconds on the meta store's clock; only decides when others may try
    """

    key: str
    holder: str
    generation: int
    expires_at: float
