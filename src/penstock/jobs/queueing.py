"""Who gets which devices next. Pure: no clock, no store.

The queue is one of arrival, for each kind by itself: a run that wants little does not pass one
that wants much, because that one might never begin then.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.base import units
from penstock.jobs.devices import Devices
from penstock.records import Claim


def grant(mine: Claim, others: Sequence[Claim], there: Devices) -> list[str] | None:
    """Devices for `mine` that nobody else holds; None: it must wait.

    others  live claims of the machine
    """
    if any(ahead_of(mine, others)):
        return None
    taken = {each for other in others for each in other.holds}
    chosen: list[str] = []
    for kind, count in mine.wants.items():
        free = [each for each in there.of(kind) if each not in taken]
        if len(free) < count:
            return None
        chosen += free[:count]
    return chosen


def ahead_of(mine: Claim, others: Sequence[Claim]) -> list[Claim]:
    """Those that came before and wait for devices of the same kind."""
    return [
        each
        for each in others
        if not each.holds and each.ticket < mine.ticket and each.wants.keys() & mine.wants.keys()
    ]


def in_the_way(mine: Claim, others: Sequence[Claim]) -> list[Claim]:
    """Whom it waits for: who holds devices of a kind that it wants, and who is ahead of it."""
    kinds = tuple(f"{kind}/" for kind in mine.wants)
    holders = [each for each in others if any(held.startswith(kinds) for held in each.holds)]
    return [*holders, *ahead_of(mine, others)]


def show(wants: dict[str, int]) -> str:
    """ "2 GPUs and 4 cores"."""
    words = {"gpu": "GPU", "core": "core"}
    return " and ".join(units.show_count(count, words[kind]) for kind, count in wants.items())
