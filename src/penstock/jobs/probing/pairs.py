"""Which nodes of a cluster try which. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 8  # others that a node tries


def partners(names: Sequence[str], most: int = MOST) -> dict[str, list[str]]:
    """name -> those it tries to reach: all others where they are few; else those that are 1, 2, 4,
    8, … places further in a ring, and then those nearest, so that each node is tried as often as
    it tries.

    >>> partners(["a", "b", "c"])
    {'a': ['b', 'c'], 'b': ['c', 'a'], 'c': ['a', 'b']}
    >>> partners([str(number) for number in range(100)], most=3)["98"]
    ['99', '0', '2']
    """
    count = len(names)
    if count - 1 <= most:
        ahead = list(range(1, count))
    else:
        far = [1 << power for power in range(most) if 1 << power < count]
        ahead = [*far, *(step for step in range(1, count) if step not in far)][:most]
    return {
        name: [names[(place + step) % count] for step in ahead] for place, name in enumerate(names)
    }


def rounds(names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """(sender, receiver) around the ring, in rounds in which no node takes part twice: what they
    measure is not what they share.

    >>> rounds(["a", "b", "c"]), rounds(["a", "b"]), rounds(["a"])
    ([[('a', 'b')], [('b', 'c')], [('c', 'a')]], [[('a', 'b')], [('b', 'a')]], [])
    """
    count = len(names)
    if count < 2:
        return []
    ring = [(name, names[(place + 1) % count]) for place, name in enumerate(names)]
    last = [ring.pop()] if count % 2 else []
    return [each for each in (ring[0::2], ring[1::2], last) if each]
