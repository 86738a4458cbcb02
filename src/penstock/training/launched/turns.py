"""Verbs beside `train` under a launcher: rank 0 first, then the others, who find it done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from penstock.base.errors import PenstockError, RunFailed, from_dict
from penstock.training.launched.here import seat_here


@contextmanager
def in_turn() -> Iterator[bool]:
    """Inside, no rank is at work that would do the same. Yields whether this one is the first.

    Raises on all ranks what rank 0 raised.
    """
    seat = seat_here()
    if seat is None or seat.world_size == 1:
        yield True
        return
    from penstock.training.launched.exchange import meet

    exchange = meet(seat)
    if seat.rank:
        told = exchange.await_("turn")
        exchange.count("heard", 1)
        if "error" in told:
            raise from_dict(told["error"])
        yield False
        return
    told = {}
    try:
        yield True
    except PenstockError as error:
        told = {"error": error.as_dict()}
        raise
    except BaseException as error:
        told = {
            "error": RunFailed(f"rank 0 failed: {error!r}", "Its traceback is above.").as_dict()
        }
        raise
    finally:
        exchange.put("turn", told)
        exchange.wait_heard(seat.world_size - 1)
