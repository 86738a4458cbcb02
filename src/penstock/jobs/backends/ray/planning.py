"""Which nodes of a cluster take how many ranks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Strategy = Literal["pack", "spread"]
Resources = Mapping[str, float]


@dataclass(frozen=True)
class Node:
    """A live node. draining: it is about to be taken away, and gets nothing new."""

    id: str
    address: str
    host: str
    total: Resources
    available: Resources
    draining: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Node:
        return cls(**row)


def with_labels(wanted: Mapping[str, str], nodes: Sequence[Node]) -> list[Node]:
    """Those that have all of these labels.

    >>> rest = ("", "", {}, {}, None)
    >>> nodes = [Node("a", *rest, {"zone": "x"}), Node("b", *rest, {"zone": "y"}), Node("c", *rest)]
    >>> [node.id for node in with_labels({"zone": "y"}, nodes)], len(with_labels({}, nodes))
    (['b'], 3)
    """
    return [node for node in nodes if wanted.items() <= node.labels.items()]


def fits(each: Resources, room: Resources) -> int:
    """How many times the resources of one rank are there.

    >>> fits({"CPU": 2, "GPU": 1}, {"CPU": 16, "GPU": 4})
    4
    """
    counts = [int(room.get(name, 0.0) / amount) for name, amount in each.items() if amount > 0]
    return min(counts, default=1 << 20)


def plan(
    ranks: int, each: Resources, nodes: Sequence[Node], strategy: Strategy
) -> dict[str, int] | None:
    """id of a node -> ranks there, of what is free now; None where they do not fit.

    pack    as few nodes as will do, the roomiest first
    spread  as even as possible over all nodes that have room

    >>> free = {"CPU": 4.0}
    >>> nodes = [Node(name, "", "", free, free) for name in "ab"]
    >>> plan(4, {"CPU": 1}, nodes, "pack"), plan(4, {"CPU": 1}, nodes, "spread")
    ({'a': 4}, {'a': 2, 'b': 2})
    """
    room = {node.id: fits(each, node.available) for node in nodes if node.draining is None}
    room = {name: count for name, count in room.items() if count > 0}
    if sum(room.values()) < ranks:
        return None
    order = sorted(room, key=lambda name: (-min(room[name], ranks), name))
    if strategy == "pack":
        return _packed(ranks, room, order)
    return _spread(ranks, room, order)


def plan_at_most(
    ranks: int, least: int, each: Resources, nodes: Sequence[Node], strategy: Strategy
) -> dict[str, int] | None:
    """The same for as many as fit, and `least` at least."""
    for count in range(ranks, least - 1, -1):
        if (found := plan(count, each, nodes, strategy)) is not None:
            return found
    return None


def _packed(ranks: int, room: dict[str, int], order: list[str]) -> dict[str, int]:
    given = {}
    for name in order:
        if ranks > 0:
            given[name] = min(room[name], ranks)
            ranks -= given[name]
    return given


def _spread(ranks: int, room: dict[str, int], order: list[str]) -> dict[str, int]:
    given = dict.fromkeys(order, 0)
    while ranks > 0:
        open_nodes = [name for name in order if given[name] < room[name]]
        name = min(open_nodes, key=lambda each: given[each])
        given[name] += 1
        ranks -= 1
    return {name: count for name, count in given.items() if count}


def most(each: Resources, nodes: Sequence[Node]) -> int:
    """Ranks that the whole cluster could hold, if nobody else were there."""
    return sum(fits(each, node.total) for node in nodes if node.draining is None)


def shown(nodes: Sequence[Node]) -> str:
    """What is there, for people: "10.0.0.1 (8 CPU, 2 GPU), 10.0.0.2 (8 CPU)"."""
    told = []
    for node in nodes:
        kinds = {name: node.total.get(name, 0.0) for name in ("CPU", "GPU")}
        counts = ", ".join(f"{amount:g} {name}" for name, amount in kinds.items() if amount)
        told.append(f"{node.address} ({counts or 'nothing'})")
    return ", ".join(told) or "no node"
