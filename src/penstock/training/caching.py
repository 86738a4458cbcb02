"""What the cache of this rank's node read, from the blob store and from other nodes, as signals."""

from __future__ import annotations

import os
import time
from typing import Any

from penstock.base.layout import Layout
from penstock.jobs.link import Link
from penstock.jobs.neighbours import VARIABLE

_EVERY = 10.0  # seconds


class NodeCache:
    """Of the first rank of a node that has neighbours; another's tells nothing.

    Bytes are those of all processes of the node since this rank began, as far as they have said;
    reading them is one small file for each cache.
    """

    def __init__(self, link: Link, layout: Layout, emitter: Any) -> None:
        self._emitter = emitter
        self._layout = layout
        self._tells = link.local[0] == 0 and VARIABLE in os.environ
        self._before: tuple[int, int] | None = None
        self._next = 0.0

    def tell(self, step: int, at_once: bool = False) -> None:
        """Called after each step; now and then it tells."""
        if not self._tells or (not at_once and time.monotonic() < self._next):
            return
        self._next = time.monotonic() + _EVERY
        if self._before is None:  # this rank reads no dataset
            return
        store, near = self._read()
        told = {
            "penstock/cache_store_bytes": float(store - self._before[0]),
            "penstock/cache_neighbour_bytes": float(near - self._before[1]),
        }
        self._emitter.scalars(step, told)

    def begin(self) -> None:
        """Before this rank reads: what was read until now is of others."""
        if self._tells and self._before is None:
            self._before = self._read()

    def _read(self) -> tuple[int, int]:
        from penstock.data.cache import counters_here

        found = counters_here(self._layout)
        return found.fetched, found.near
