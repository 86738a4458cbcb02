"""What a source is told about rows to come and rows that are done with, so that the node's cache
fetches ahead and evicts behind in the known order. Hints change no batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from penstock.data.order import Order, Rows, order_rows
from penstock.data.pipeline.plan import OrderPlan, Picks, Plan

_SOON = 1 << 18  # rows told ahead when reading as they lie
_EVERY = 1 << 6  # one row in so many is told: shards are what is fetched, not rows
_MOST = 1 << 14  # rows told at once: a large window must not delay the first batch


class Hints:
    """Told in the order of the picks, by one thread at a time."""

    def __init__(self, plan: Plan, source: Any) -> None:
        self._plan = plan
        self._ahead = getattr(source, "ahead", None)
        self._done = getattr(source, "done", None)
        self._source = source
        self._told = -1  # piece of the epoch that was told last

    def before(self, picks: Picks) -> None:
        """These are gathered next."""
        if self._ahead is not None:
            self._ahead(picks.rows)
            if (more := self.soon(picks)) is not None:
                self._ahead(more)

    def soon(self, picks: Picks) -> Rows | None:
        """Rows beyond these picks, when there is something new to tell."""
        order = getattr(self._plan, "order", None)
        if not isinstance(self._plan, OrderPlan) or order is None or not len(picks.rows):
            return None
        if order.shuffle and not order.block:
            return None  # they come from everywhere: the picks themselves say it
        span = order.window if order.shuffle else _SOON
        step = picks.first % self._plan.steps_per_epoch
        piece = step * order.batch // span
        if piece == self._told:
            return None
        self._told = piece
        return self._plan.translated(_of_piece(order, int(picks.epochs[0]), piece + 1, span))

    def after(self, picks: Picks) -> None:
        """These were gathered."""
        if self._done is not None and getattr(self._source, "bounded", True):
            self._done(self._plan.all_rows(picks))


def _of_piece(order: Order, epoch: int, piece: int, span: int) -> Rows:
    """Some rows of each block of a piece of the epoch, in the order in which they come."""
    stop = min((piece + 1) * span, order.rows)
    every = min(_EVERY, order.block) if order.shuffle else _EVERY
    every = max(1, every, (stop - piece * span) // _MOST)
    positions = np.arange(piece * span, stop, every, dtype=np.int64)
    return order_rows(order, epoch, positions)
