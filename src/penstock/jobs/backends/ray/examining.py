"""Every node of a Ray cluster, looked at by an actor of ours on each; all nodes at once.

Every wait has a deadline, and what is not answered in time is what is told of that node: the others
are looked at all the same. The actors claim next to nothing, so that a cluster that is full can be
looked at; they end with this driver.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from penstock.base.errors import PenstockError, Unavailable
from penstock.jobs.backends.ray.cluster import WEIGHTLESS, Cluster
from penstock.jobs.backends.ray.planning import Node
from penstock.jobs.probing import pairs
from penstock.jobs.probing.lines import Line, reached

Say = Callable[[str], None]
MOST_BYTES = 64 << 20  # that one node sends another, to see how many a second that are
MOST_SECONDS = 1.0  # for which it sends, if that is less
_REACH = 3.0  # seconds for a connection, and for its answer
_CLOCK = 5.0  # seconds for a node to say what time it is
_EXCHANGES = 5  # of which the fastest is the most certain
_AT_ONCE = 16  # nodes that this machine tries to reach at a time


@dataclass
class _Looked:
    """What is known of one node so far. error: why nothing more will be."""

    node: Node
    actor: Any = None
    error: dict[str, Any] | None = None
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.told.get("line")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Without the way to its listener, which is a secret and of no use any more."""
        told = {key: value for key, value in self.told.items() if key != "line"}
        node = self.node
        about = {"id": node.id, "address": node.address, "host": node.host}
        return {
            **about,
            "cpus": node.total.get("CPU", 0.0),
            "gpus": node.total.get("GPU", 0.0),
            "draining": node.draining,
            "error": self.error,
            **told,
        }


def examine(cluster: Cluster, spec: dict[str, Any], say: Say) -> dict[str, Any]:
    """spec     "patience": seconds for each answer; "blobs" and "named" of `here.facts`
    returns  {"nodes": [{id, address, host, cpus, gpus, draining, error, versions, clock, here,
             facts, reach}], "lines": [{from, to, bytes, seconds} | {from, to, error}]}

    Raises what joining the cluster raises: Unavailable, AccessDenied, BadInput, MissingExtra.
    """
    say("joining the cluster")
    nodes = cluster.nodes()
    return _Examination(cluster, spec, say, nodes).run()


class _Examination:
    def __init__(
        self, cluster: Cluster, spec: dict[str, Any], say: Say, nodes: Iterable[Node]
    ) -> None:
        self._cluster = cluster
        self._spec = spec
        self._say = say
        self._patience = float(spec["patience"])
        self._looked = {node.id: _Looked(node) for node in nodes}

    def run(self) -> dict[str, Any]:
        self._open()
        self._compare_clocks()
        self._reach_from_here()
        self._reach_each_other()
        lines = self._send()
        blobs, named = self._spec["blobs"], self._spec["named"]
        self._ask("facts", "looking at each node", lambda one: one.actor.facts.remote(blobs, named))
        return {"nodes": [each.as_dict() for each in self._looked.values()], "lines": lines}

    def _open(self) -> None:
        from penstock.jobs.backends.ray.examiner import Examiner

        ray = self._cluster.ray
        for one in self._well():
            where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                one.node.id, soft=False
            )
            options = {**WEIGHTLESS, "max_restarts": 0, "scheduling_strategy": where}
            one.actor = ray.remote(Examiner).options(**options).remote()
        for one, answer in self._answers(
            "waiting for a process on each node", lambda one: one.actor.open.remote()
        ):
            one.told |= answer

    def _compare_clocks(self) -> None:
        """{"offset": seconds that the node is ahead of this machine, "uncertainty": half of the
        exchange that took least}."""
        self._say("comparing clocks")
        for one in self._well():
            found: list[tuple[float, float]] = []
            try:
                for _ in range(_EXCHANGES):
                    before = time.time()
                    there = self._cluster.answer(one.actor.clock.remote, "the time", _CLOCK)
                    half = (time.time() - before) / 2
                    found.append((half, there - before - half))
            except PenstockError as error:
                one.error = error.as_dict()
                continue
            uncertainty, offset = min(found)
            one.told["clock"] = {"offset": offset, "uncertainty": uncertainty}

    def _reach_from_here(self) -> None:
        self._say("reaching each node from this machine")
        tried = [one for one in self._well() if one.line is not None]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = pool.map(lambda one: reached(Line(**one.line), _REACH), tried)
            for one, answer in zip(tried, answers, strict=True):
                one.told["here"] = answer

    def _reach_each_other(self) -> None:
        there = {one.node.id: one.line for one in self._well() if one.line is not None}
        tried = pairs.partners(sorted(there))

        def begin(one: _Looked) -> Any:
            lines = {name: there[name] for name in tried.get(one.node.id, [])}
            return one.actor.reach.remote(lines, _REACH)

        self._ask("reach", "reaching each node from others", begin)

    def _send(self) -> list[dict[str, Any]]:
        """A bounded number of bytes from each node to the next."""
        there = {one.node.id: one for one in self._well() if one.line is not None}
        found = []
        for number, several in enumerate(pairs.rounds(sorted(there)), 1):
            self._say(f"sending bytes between nodes, round {number}")
            begun = {}
            for sender, receiver in several:
                line = there[receiver].line
                bounds = (MOST_BYTES, MOST_SECONDS, _REACH)
                begun[sender, receiver] = there[sender].actor.send.remote(line, *bounds)
            for (sender, receiver), reference in begun.items():
                try:
                    answer = self._answer_of(reference, "sending bytes", 4 * _REACH)
                except PenstockError as error:
                    answer = {"error": error.what}
                found.append({"from": sender, "to": receiver, **answer})
        return found

    # -- asking all at once ---------------------------------------------------------------------

    def _ask(self, key: str, what: str, begin: Callable[[_Looked], Any]) -> None:
        for one, answer in self._answers(what, begin):
            one.told[key] = answer

    def _answer_of(self, reference: Any, what: str, seconds: float) -> Any:
        return self._cluster.answer(lambda: reference, what, seconds)

    def _well(self) -> list[_Looked]:
        """Those that answered so far. A node that is about to go takes no actor any more."""
        there = self._looked.values()
        return [one for one in there if one.error is None and one.node.draining is None]

    def _first_of(self, waiting: list[Any], what: str, seconds: float) -> list[Any]:
        """Of those, one that has answered; none, when time is over."""
        wait = partial(self._cluster.ray.wait, waiting, num_returns=1, timeout=seconds)
        ready: list[Any] = self._cluster.call(what, wait, seconds + 5.0)[0]
        return ready

    def _answers(
        self, what: str, begin: Callable[[_Looked], Any]
    ) -> Iterable[tuple[_Looked, dict[str, Any]]]:
        """(node, its answer) of those that answer within the patience; the others have an error."""
        waiting = {begin(one): one for one in self._well()}
        count = len(waiting)
        self._say(f"{what}: 0 of {count}")
        until = time.monotonic() + self._patience
        while waiting:
            left = max(0.0, until - time.monotonic())
            ready = self._first_of(list(waiting), what, left)
            if not ready:
                break
            one = waiting.pop(ready[0])
            try:
                yield one, self._answer_of(ready[0], what, _CLOCK)
            except PenstockError as error:
                one.error = error.as_dict()
            self._say(f"{what}: {count - len(waiting)} of {count}")
        for one in waiting.values():
            one.error = Unavailable(
                f"no answer within {self._patience:g} s ({what})",
                "Is the machine stopped, overloaded or cut off? See `ray status`, and its logs.",
            ).as_dict()
