"""What of a gang's states is whole on several agents, what is safe, and what is to be copied. Pure.

A part is (gang, step, rank); an agent has parts that its own ranks kept, and copies of others'. A
state is whole when every rank's part is on some agent, and safe when every part is on two, so that
no single loss takes it. Where a copy cannot be had it is done without: the state counts as safe
as it can be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import NamedTuple

Name = tuple[int, int]  # gang, step
Part = tuple[int, int, int]  # gang, step, rank
Has = Mapping[str, Set[Part]]  # agent -> what it has


class Copy(NamedTuple):
    """An agent is to copy parts from another."""

    to: str
    source: str
    parts: tuple[Part, ...]


def holders(has: Has, name: Name, rank: int) -> list[str]:
    """Agents that have a rank's part of a state."""
    return [agent for agent, parts in has.items() if (*name, rank) in parts]


def whole(has: Has, world: int) -> list[Name]:
    """States of which all ranks' parts are there, ascending.

    >>> whole({"a": {(1, 5, 0), (1, 9, 0)}, "b": {(1, 5, 1)}}, 2)
    [(1, 5)]
    """
    names = {part[:2] for parts in has.values() for part in parts}
    return sorted(n for n in names if all(holders(has, n, rank) for rank in range(world)))


def missing(
    has: Has, name: Name, world: int, ring: Sequence[str], done_without: Collection[Part]
) -> list[Copy]:
    """Copies that would make a whole state safe: of each part that one agent alone has, by the next
    agent in the ring.

    ring  the gang's agents in order; with one of them nothing can be made safer

    >>> missing({"a": {(1, 5, 0)}, "b": {(1, 5, 1)}}, (1, 5), 2, ["a", "b"], ())
    [Copy(to='b', source='a', parts=((1, 5, 0),)), Copy(to='a', source='b', parts=((1, 5, 1),))]
    >>> missing({"a": {(1, 5, 0), (1, 5, 1)}, "b": {(1, 5, 1)}}, (1, 5), 2, ["a", "b"], ())
    [Copy(to='b', source='a', parts=((1, 5, 0),))]
    """
    wanted: dict[tuple[str, str], list[Part]] = {}
    for rank in range(world):
        part, found = (*name, rank), holders(has, name, rank)
        if len(found) != 1 or part in done_without:
            continue
        to = next_in(ring, found[0])
        if to is not None:
            wanted.setdefault((to, found[0]), []).append(part)
    return [Copy(to, source, tuple(parts)) for (to, source), parts in wanted.items()]


def next_in(ring: Sequence[str], agent: str) -> str | None:
    """The one after an agent; None where there is no other. One that is not in it has the first."""
    others = [each for each in ring if each != agent]
    if not others:
        return None
    if agent not in ring:
        return others[0]
    return ring[(ring.index(agent) + 1) % len(ring)]
