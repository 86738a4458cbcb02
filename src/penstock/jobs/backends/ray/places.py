"""Places on the nodes of a Ray cluster: each a placement group, and in it an actor with an agent.

A group is pinned to the node that was chosen for it, so what is planned is what is held; those of
one gang are reserved together, or given back. Actors and groups are detached and have the name of
the run and the place: a keeper that is started again knows them by it. Ray's own opinion of which
of them live is never waited for: a node that gives no answer gets nothing new for a while, and what
it has is left to it until it answers, or until the run ends. There an agent without a controller
ends by itself, with its group.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput, PenstockError, Unavailable, from_dict
from penstock.jobs.backends import hosting
from penstock.jobs.backends.places import Over, Place, Waits, Wish
from penstock.jobs.backends.ray import planning
from penstock.jobs.backends.ray.cluster import Cluster
from penstock.jobs.backends.ray.demand import Demand
from penstock.jobs.backends.ray.planning import Node
from penstock.jobs.backends.ray.suspects import Suspects
from penstock.jobs.backends.ray.used import Used
from penstock.jobs.rpc import Door

_BEGIN = 90.0  # seconds for an actor to start, and its agent to listen
_INSTALL = 600.0  # the same where packages are installed first
_SLICE = 2.0  # seconds of that until one looks whether it is still wanted
_FIND = 5.0  # seconds for all that are there to say where
_RESERVE = 5.0  # seconds for resources that are free to be reserved
_FREED = 0.1  # seconds until all nodes know that what was held is free
_LOOK = 0.5  # seconds between two looks for nodes
_END = 3.0  # seconds for an agent to end
_END_ALL = 10.0  # seconds for what is left on nodes to be removed
_NODE = "ray.io/node-id"  # the label that every node has


class RayPlaces:
    """One run's; see `places.Places`. Used by the keeper's one thread that asks.

    spec  of the agents; "resources": of one rank, by Ray's names; "strategy": pack or spread;
          "labels": that a node must have; "packages": that are installed for the agent;
          "waits": also for nodes that are not there, as an autoscaler may add them
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._run = str(spec["run_id"])
        self._cluster = Cluster(spec["engine"])
        self._strategy: planning.Strategy = spec["strategy"]
        self._labels: dict[str, str] = spec["labels"]
        self._begin_seconds = _INSTALL if spec["packages"] else _BEGIN
        self._demand = Demand(self._cluster, self._run, self._labels)
        self._nodes: dict[str, str] = {}  # name of a place -> id of its node
        self._used = Used(Path(spec["runtime"]))
        self._suspects = Suspects()
        self._silent: set[str] = set()  # places that could not be told to end
        self._uncleared: set[str] = set()  # addresses where something of the run may be left
        self._addresses: dict[str, str] = {}  # of nodes by their ids
        self._learned = False  # where the places are that an earlier keeper made
        self._tidy = False  # what an earlier keeper left, and nobody has, is gone
        self._ended = False

    # -- getting --------------------------------------------------------------------------------

    def find(self) -> list[Place]:
        self._learned = True
        asked = {name: self._actor(name) for name in self._names()}
        until = time.monotonic() + _FIND
        found = []
        for name, actor in asked.items():
            if actor is not None:
                left = max(0.5, until - time.monotonic())
                with contextlib.suppress(Unavailable):  # it died, or its node did
                    facts = self._cluster.answer(actor.place.remote, f"where {name} is", left)
                    if "door" in facts:
                        found.append(self._place(facts))
        return found

    def _actor(self, name: str) -> Any:
        """None where Ray knows that it is gone. Raises Unavailable."""
        with contextlib.suppress(ValueError):
            ray = self._cluster.ray
            return self._cluster.call(
                f"the actor {name}", lambda: ray.get_actor(f"{self._run}/{name}")
            )
        return None

    def want(self, wish: Wish, waits: Waits, over: Over) -> list[Place]:
        self._tidy_up({each.name for each in wish.have})
        try:
            return self._wanted(wish, waits, over)
        finally:
            with contextlib.suppress(Unavailable):  # the next one withdraws it
                self._demand.withdraw()

    def _wanted(self, wish: Wish, waits: Waits, over: Over) -> list[Place]:
        ranks, missing, enough = wish.ranks, wish.ranks - wish.slots, wish.least - wish.slots
        told: str | None = None
        until = time.monotonic() + wish.moment
        while missing > 0 and not over():
            nodes = self._open_to(wish)
            self._addresses |= {node.id: node.address for node in nodes}
            each = self._resources(ranks, nodes)
            if not (wish.once or wish.waits or self._spec["waits"]):
                self._check_it_can_be(wish.least, each, nodes)
            fewest = enough if wish.once or time.monotonic() >= until else missing
            shares = planning.plan_at_most(missing, max(1, fewest), each, nodes, self._strategy)
            if shares and (new := self._take(shares, each, over)) is not None:
                return [*wish.have, *new]
            if wish.once or (enough <= 0 and time.monotonic() >= until):
                break  # what there is will do
            wanted = f"{missing} ranks of {_show(each)}"
            if wanted != told:
                waits({"shown": wanted, "there": planning.shown(nodes)})
                told = wanted
            self._wait(missing, each)
        return list(wish.have)

    def _wait(self, ranks: int, each: dict[str, float]) -> None:
        """For a moment, or until Ray has room for all of it."""
        if self._demand.is_met():
            self._demand.withdraw()
            time.sleep(_FREED)
            return
        self._demand.tell(ranks, each)
        time.sleep(_LOOK)

    def _open_to(self, wish: Wish) -> list[Node]:
        """Nodes that it may be on."""
        nodes = self._suspects.passed_over(self._cluster.nodes())
        found = planning.with_labels(self._labels, nodes)
        rest = [node for node in found if node.address not in wish.avoid]
        room = planning.most(self._resources(wish.ranks, found), rest)
        return rest if wish.once or room >= wish.least else found

    def _tidy_up(self, known: set[str]) -> None:
        """Of the run's actors and groups those that nobody has: of agents that were lost, of a
        keeper that died while it made them."""
        mine = set(self._nodes) if self._tidy else set(self._names()) | set(self._reserved())
        for name in (mine - known) - self._silent:
            self._drop(name)
        for name in set(self._silent):
            if self._actor(name) is None:  # Ray knows by now
                self._drop(name)
        self._tidy = True

    def _resources(self, ranks: int, nodes: list[Node]) -> dict[str, float]:
        """Of one rank: with device="auto" a GPU, where there is one for each."""
        each = {name: float(amount) for name, amount in self._spec["resources"].items()}
        if each.pop("auto", 0.0):
            with_gpu = {**each, "GPU": 1.0}
            return with_gpu if planning.most(with_gpu, nodes) >= ranks else each
        return each

    def _check_it_can_be(self, ranks: int, each: dict[str, float], nodes: list[Node]) -> None:
        room = planning.most(each, nodes)
        if room < ranks:
            only = f" on its nodes with {_pairs(self._labels)}" if self._labels else ""
            raise BadInput(
                f"{ranks} ranks of {_show(each)} can never be on this cluster, which has room for "
                f"{room}{only}: {planning.shown(nodes)}",
                "Ask for fewer workers or threads, or add nodes.",
                ranks=ranks,
                room=room,
            )

    def _take(
        self, shares: dict[str, int], each: dict[str, float], over: Over
    ) -> list[Place] | None:
        """Reserve all of it and start agents; None when somebody else was faster, or nobody wants
        it any more."""
        names = {node: hosting.new_name() for node in shares}
        try:
            groups = {
                node: self._reserve(names[node], node, _times(each, count))
                for node, count in shares.items()
            }
            if not self._are_held(groups):
                self._give_up(names.values())
                return None
            begun = [
                self._begin(groups[node], names[node], count, _times(each, count))
                for node, count in shares.items()
            ]
            facts = [self._await(actor, over) for actor in begun]
        except BaseException:
            self._give_up(names.values())
            raise
        if any(each is None for each in facts):
            self._give_up(names.values())
            return None
        return [self._place(each) for each in facts if each is not None]

    def _reserve(self, name: str, node: str, amounts: dict[str, float]) -> Any:
        ray = self._cluster.ray
        self._nodes[name] = node
        self._used.add(self._addresses[node])
        return self._cluster.call(
            f"a placement group for {name}",
            lambda: ray.util.placement_group(
                [amounts],
                strategy="PACK",
                name=f"{self._run}/{name}",
                lifetime="detached",
                bundle_label_selector=[{_NODE: node}],
            ),
        )

    def _are_held(self, groups: dict[str, Any]) -> bool:
        """id of a node -> its group. A node that gives no room that is free is suspected."""
        deadline = time.monotonic() + _RESERVE
        held = True
        for node, group in groups.items():
            left = max(0.1, deadline - time.monotonic())
            if not self._cluster.call("room", partial(group.wait, left), left + 2.0):
                self._suspects.add(node)
                held = False
        return held

    def _give_up(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(PenstockError):
                self._drop(name)

    def _begin(self, group: Any, name: str, slots: int, amounts: dict[str, float]) -> Any:
        from penstock.jobs.backends.ray.inside import Host

        ray = self._cluster.ray
        host = ray.remote(Host).options(
            name=f"{self._run}/{name}",
            lifetime="detached",
            max_restarts=0,
            num_cpus=amounts.pop("CPU", 0.0),
            num_gpus=amounts.pop("GPU", 0.0),
            resources=amounts or None,
            runtime_env={"pip": self._spec["packages"]} if self._spec["packages"] else None,
            scheduling_strategy=ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
                group, placement_group_bundle_index=0
            ),
        )
        return self._cluster.call(
            f"an actor for {name}", lambda: host.remote(name, self._spec, slots)
        )

    def _await(self, actor: Any, over: Over) -> dict[str, Any] | None:
        """Where it is; None when nobody wants it any more. Raises Unavailable, BadInput, or what
        hindered the agent."""
        facts = self._begun(actor, over)
        if facts is None:
            return None
        from penstock.jobs.backends.ray.inside import versions

        for what, here in versions().items():
            if facts[what] != here:
                raise BadInput(
                    f"{what} is {facts[what]} on node {facts['host']} and {here} here",
                    "Install the same on all nodes of the cluster, and here.",
                )
        if "error" in facts:
            raise from_dict(facts["error"])
        return facts

    def _begun(self, actor: Any, over: Over) -> dict[str, Any] | None:
        ray, reference = self._cluster.ray, actor.place.remote()
        deadline = time.monotonic() + self._begin_seconds
        while not over():
            left = max(0.1, min(_SLICE, deadline - time.monotonic()))
            wait = partial(ray.wait, [reference], timeout=left)
            if self._cluster.call("an agent's start", wait, left + 5.0)[0]:
                facts: dict[str, Any] = self._cluster.answer(lambda: reference, "an agent's start")
                return facts
            if time.monotonic() > deadline:
                seconds = f"{self._begin_seconds:g} s"
                raise Unavailable(f"no agent came up within {seconds}", "See its node's logs.")
        return None

    def _place(self, facts: dict[str, Any]) -> Place:
        self._nodes[facts["name"]] = facts["node"]
        self._addresses[facts["node"]] = facts["door"]["host"]
        self._used.add(facts["door"]["host"])
        self._suspects.clear(facts["node"])
        return Place(facts["name"], Door(**facts["door"]), int(facts["slots"]))

    def leaving(self) -> dict[str, float]:
        if not self._learned and not self._nodes:
            self.find()
        left = {node.id: node.draining for node in self._cluster.nodes()}
        found = {name: left.get(node) for name, node in self._nodes.items()}
        return {name: seconds for name, seconds in found.items() if seconds is not None}

    # -- giving back ----------------------------------------------------------------------------

    def drop(self, place: Place, silent: bool = False) -> None:
        if not silent:
            self._drop(place.name)
            return
        if (node := self._nodes.pop(place.name, None)) is not None:
            self._suspects.add(node)
        self._silent.add(place.name)
        actor = self._actor(place.name)
        if actor is not None:  # nobody waits: it hears it when it answers again
            self._cluster.call(f"the end of {place.name}", lambda: actor.close.remote(False))

    def end(self) -> None:
        if self._ended:
            return  # to ask again would join again
        self._uncleared |= set(self._used) - self._forgotten()
        with contextlib.suppress(PenstockError):  # agents that are started there later sweep it
            self._clear_nodes()
        self._ended = True
        self._cluster.leave()

    def _forgotten(self) -> set[str]:
        """Addresses where all that was there said that nothing of the run is left. Several nodes of
        Ray may be on one machine."""
        said: set[str] = set()
        silent: set[str] = set()
        for name in {*self._names(), *self._reserved()}:
            address = self._addresses.get(self._nodes.get(name, ""), "")
            (said if self._drop(name, forget=True) else silent).add(address)
        return said - silent

    def _drop(self, name: str, forget: bool = False) -> bool:
        """Whether its host said that it ended it. forget: the run is over; nothing of it is to
        stay on that node"""
        node, actor = self._nodes.pop(name, None), self._actor(name)
        closed = None if actor is None else self._close(name, actor, forget)
        if closed is False:
            self._silent.add(name)
            if node is not None:
                self._suspects.add(node)
            if not forget:
                return False  # it hears it when it answers again; to kill it would leave its files
        self._silent.discard(name)
        self._cluster.call(f"the end of {name}", lambda: self._remove(name, actor))
        return bool(closed)

    def _close(self, name: str, actor: Any, forget: bool) -> bool | None:
        """False: it gives no answer; None: it is gone."""
        try:
            self._cluster.answer(lambda: actor.close.remote(forget), f"the end of {name}", _END)
        except Unavailable as error:
            return False if error.facts.get("silent", False) else None
        return True

    def _remove(self, name: str, actor: Any) -> None:
        ray = self._cluster.ray
        if actor is not None:
            ray.kill(actor)
        with contextlib.suppress(ValueError):
            ray.util.remove_placement_group(ray.util.get_placement_group(f"{self._run}/{name}"))

    def _clear_nodes(self) -> None:
        """Of what agents left that had no time to: their nodes lost power, or were cut off."""
        ray = self._cluster.ray
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        nodes = self._cluster.nodes()
        forget = ray.remote(num_cpus=0, max_retries=0)(hosting.forget)
        tasks = [
            forget.options(scheduling_strategy=near(node.id, soft=False)).remote(self._run)
            for node in nodes
            if node.address in self._uncleared
        ]
        if tasks:
            wait = partial(ray.wait, tasks, num_returns=len(tasks), timeout=_END_ALL)
            self._cluster.call("what is left on nodes", wait, _END_ALL + 2.0)

    def _names(self) -> list[str]:
        """Of the run's actors, also those of earlier keepers."""
        ray = self._cluster.ray
        return self._of_run(self._cluster.call("its actors", ray.util.list_named_actors))

    def _reserved(self) -> list[str]:
        """The same of its placement groups."""
        ray = self._cluster.ray
        table = self._cluster.call("its placement groups", ray.util.placement_group_table)
        rows = table.values()
        return self._of_run(row["name"] for row in rows if row["state"] != "REMOVED")

    def _of_run(self, names: Any) -> list[str]:
        head = f"{self._run}/"
        return [name.removeprefix(head) for name in names if name.startswith(head)]


def _times(each: dict[str, float], count: int) -> dict[str, float]:
    return {name: amount * count for name, amount in each.items()}


def _pairs(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items())


def _show(each: dict[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in each.items()) or "no resources"
