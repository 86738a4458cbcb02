"""Which slots of the memory tier are worth keeping, and how often one is filled. Pure.

A state is named by gang and step; a later gang's is newer whatever its step. What all seats hold
is whole. Each seat fills its slots in order, so what another seat went past without holding it
never becomes whole. A seat keeps at most two: one of its three slots is always free, or on its
way to the disk.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

LEAST_SECONDS = 1.0  # between two states, where the interval is chosen by cost
_COST = 100  # an interval is this many times what a state costs: about 1 % of the time
_MOST = 2  # states that a seat holds

Name = tuple[int, int]  # gang, step


def newest_common(held: Mapping[int, Collection[Name]]) -> Name | None:
    """The newest state that all seats hold.

    >>> newest_common({0: [(1, 10), (1, 20)], 1: [(1, 10)]})
    (1, 10)
    """
    if not held:
        return None
    common = set.intersection(*(set(names) for names in held.values()))
    return max(common, default=None)


def useless(held: Mapping[int, Collection[Name]]) -> dict[int, set[Name]]:
    """Per seat, the states that need not be kept any more.

    >>> useless({0: [(1, 10), (1, 20)], 1: [(1, 10), (1, 20)]})
    {0: {(1, 10)}, 1: {(1, 10)}}
    >>> useless({0: [(1, 10), (1, 20)], 1: [(1, 10)]})
    {0: set(), 1: set()}
    """
    common = newest_common(held)
    newest = {seat: max(names, default=(0, -1)) for seat, names in held.items()}

    def wanted(seat: int, name: Name) -> bool:
        if name == common:
            return True
        may_become_whole = all(name in held[each] or newest[each] < name for each in held)
        return name == newest[seat] and may_become_whole

    return {
        seat: {name for name in names if not wanted(seat, name)} for seat, names in held.items()
    }


def not_wanted(
    held: Collection[Name], stays: Collection[Name], read: Collection[Name]
) -> set[Name]:
    """Of one seat, where somebody else knows what is whole: the states that need not be kept.

    stays  those that must
    read   those that a neighbour reads now
    Beside what must stay, the newest is kept, if that makes two; but while an older one is read,
    which may become whole soon, a newer one is not.

    >>> not_wanted([(1, 10), (1, 20), (1, 30)], [(1, 10)], [])
    {(1, 20)}
    >>> not_wanted([(1, 10), (1, 20), (1, 30)], [(1, 10)], [(1, 20)])
    {(1, 30)}
    >>> not_wanted([(1, 10), (1, 20), (1, 30)], [(1, 10), (1, 20)], [])
    {(1, 30)}
    >>> not_wanted([(1, 10), (1, 20)], [(1, 20)], [])
    {(1, 10)}
    """
    must = {name for name in held if name in stays}
    newer = sorted(name for name in held if name not in must and name > max(stays, default=(0, 0)))
    wanted = set(must)
    if newer and len(must) < _MOST:
        wanted.add(next((name for name in newer if name in read), newer[-1]))
    return set(held) - wanted


def next_step(steps: Collection[int], pace: float, cost: float) -> int:
    """The step after which all ranks fill a slot next: so far ahead that every rank still has it
    before itself when it hears of it.

    steps  completed by each rank
    pace   steps per second, lately
    cost   seconds that the last one took from a rank

    >>> next_step([100, 101], pace=20.0, cost=0.03)
    161
    """
    seconds = max(LEAST_SECONDS, _COST * cost)
    return max(steps) + max(2, math.ceil(pace * seconds))
