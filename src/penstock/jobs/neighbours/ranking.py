"""Who is asked for a thing first. Pure: all nodes that know the same nodes agree on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def ranked(thing: str, nodes: Iterable[str]) -> list[str]:
    """The nodes, for this thing in this order: by the highest hash of thing and node (rendezvous
    hashing), so that things are spread over them and a node that goes moves only its own.

    >>> ranked("a", ["x", "y", "z"]) == ranked("a", ["z", "x", "y"])
    True
    >>> sorted({ranked(str(n), ["x", "y", "z"])[0] for n in range(20)})
    ['x', 'y', 'z']
    """

    def weight(node: str) -> bytes:
        return hashlib.blake2b(f"{thing}\0{node}".encode(), digest_size=8).digest()

    return sorted(nodes, key=lambda node: (weight(node), node), reverse=True)
