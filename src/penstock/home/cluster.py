"""A cluster at this moment: its nodes by asking it, what runs do there by their rows.

Rows alone tell which agents and ranks a run has, what it waits for and what it lost; so when the
cluster cannot be asked there is still an answer, which says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from penstock.base.errors import PenstockError
from penstock.home import runs as running
from penstock.home.doctor.cluster import is_elsewhere
from penstock.home.doctor.judging import names_of
from penstock.home.views import ClusterView, HoldView, NodeView, RunView, WaitView
from penstock.jobs.backends import engines
from penstock.jobs.probing.asking import Asking

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.records import Event

_GOING_ON = ("pending", "running", "stopping")
_RECENT = 20  # newest runs whose faults are told, beside those that go on
_FAULTS = 12  # that are told
_PAGE = 1000
_TELL_OF = frozenset(
    {
        "node.lost",
        "agent.died",
        "rank.died",
        "rank.hung",
        "rank.slow",
        "places.waiting",
        "gang.resized",
        "run.draining",
        "controller.adopted",
    }
)


@dataclass
class _Told:
    """What the events of one run say, as far as they are read."""

    cursor: int = 0
    where: dict[str, dict[str, Any]] = field(default_factory=dict)  # rank -> {node, host}
    attempt: int | None = None
    generation: int | None = None
    waiting: Event | None = None
    faults: list[Event] = field(default_factory=list)

    def hear(self, event: Event) -> None:
        self.cursor = event.seq
        if event.kind in _TELL_OF:
            self.faults = [*self.faults[-_FAULTS:], event]
        if event.kind == "attempt.started":
            self.attempt, self.generation = event.body["attempt"], event.body["generation"]
            self.where, self.waiting = {}, None
        elif event.kind == "gang.started":
            self.where, self.waiting = event.body.get("where", {}), None
        elif event.kind == "places.waiting":
            self.waiting = event
        elif event.kind == "attempt.ended":
            self.where = {}


class ClusterWatch:
    """Asked again, it reads only what is new. Any thread, one look at a time.

    Owns the process that asks Ray, until `close`.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._looking = threading.Lock()
        self._asking: Asking | None = None
        self._told: dict[str, _Told] = {}

    def look(self, tell: Callable[[str], None]) -> ClusterView:
        """Raises BadInput for a setting that names no engine, and what the meta store raises."""
        engines.check(self._stores.settings)
        with self._looking:
            there, error, note = self._ask(tell)
            views, recent = self._read()
            names = names_of(there["nodes"])
            return ClusterView(
                engine=self._stores.settings.engine,
                at=time.time(),
                note=note,
                error=error,
                nodes=_nodes(there, names),
                runs=views,
                holds=self._holds(there["held"] if error is None and not note else None, names),
                waits=[self._waits(view) for view in views if self._told[view.id].waiting],
                faults=self._faults(recent),
            )

    def close(self) -> None:
        with self._looking:
            if self._asking is not None:
                self._asking.close()
                self._asking = None

    # -- the cluster ------------------------------------------------------------------------------

    def _ask(
        self, tell: Callable[[str], None]
    ) -> tuple[dict[str, Any], dict[str, Any] | None, str]:
        """(what there is, why it is not known, what there is to say of it)"""
        nothing: dict[str, Any] = {"nodes": [], "dead": [], "held": []}
        settings = self._stores.settings
        if not is_elsewhere(settings):
            return nothing, None, _of_this_machine(settings.engine)
        tell("asking Ray")
        if self._asking is None:
            self._asking = Asking(settings.engine)
        try:
            return self._asking.ask(tell, nodes={}), None, ""
        except PenstockError as error:
            return nothing, error.as_dict(), ""

    # -- rows -------------------------------------------------------------------------------------

    def _read(self) -> tuple[list[RunView], list[str]]:
        """(trainings that go on, ids of those whose faults are told)"""
        with self._stores.meta.read() as db:
            rows = [run for run in db.runs(limit=1000, states=_GOING_ON) if run.work == "train"]
            views = [running.view(db, run) for run in rows]
            recent = [run.id for run in db.runs(limit=_RECENT) if run.work == "train"]
        known = {*recent, *(view.id for view in views)}
        self._told = {each: self._told.get(each) or _Told() for each in known}
        for each, told in self._told.items():
            while found := self._events(each, told.cursor):
                for event in found:
                    told.hear(event)
        return views, sorted(known)

    def _events(self, run: str, after: int) -> list[Event]:
        with self._stores.meta.read() as db:
            return db.events(after=after, subject=f"run/{run}", limit=_PAGE)

    def _faults(self, runs: list[str]) -> list[Event]:
        found = [event for each in runs for event in self._told[each].faults]
        return sorted(found, key=lambda event: -event.seq)[:_FAULTS]

    def _waits(self, view: RunView) -> WaitView:
        event = self._told[view.id].waiting
        assert event is not None
        body = event.body
        return WaitView(view.id, view.name, body.get("shown", ""), body.get("there", ""), event.at)

    # -- what runs hold ---------------------------------------------------------------------------

    def _holds(self, held: list[dict[str, Any]] | None, names: dict[str, str]) -> list[HoldView]:
        """held: None: the cluster cannot be asked, and rows tell"""
        by_rows = {
            (run, place["node"]): place["host"]
            for run, told in self._told.items()
            for place in told.where.values()
        }
        found = []
        if held is None:
            for (run, agent), host in by_rows.items():
                found.append(self._hold(run, agent, host, "as rows say", {}))
        for each in held or []:
            node = names.get(each["node"], "")
            found.append(
                self._hold(each["run"], each["place"], node, each["state"], each["resources"])
            )
        return sorted(found, key=lambda hold: (hold.run, min(hold.ranks, default=0), hold.agent))

    def _hold(
        self, run: str, agent: str, node: str, state: str, resources: dict[str, float]
    ) -> HoldView:
        told = self._told.get(run)
        ranks = [] if told is None else _ranks(told.where, agent)
        return HoldView(
            run=run,
            name=self._name(run),
            agent=agent,
            node=node,
            state=state,
            ranks=ranks,
            attempt=told.attempt if told else None,
            generation=told.generation if told else None,
            resources=resources,
        )

    def _name(self, run: str) -> str:
        with self._stores.meta.read() as db:
            found = db.find_run(run)
        return "" if found is None else found.name


def _ranks(where: dict[str, dict[str, Any]], agent: str) -> list[int]:
    return sorted(int(rank) for rank, place in where.items() if place["node"] == agent)


def _of_this_machine(engine: str) -> str:
    if engine == "processes":
        return "ranks run on this machine; `penstock runs queue` has its devices"
    if engines.is_ray(engine):
        return "a Ray cluster is started on this machine for each run, and ends with it"
    return "agents on this machine, as if each were a machine, for as long as a run goes on"


def _nodes(there: dict[str, Any], names: dict[str, str]) -> list[NodeView]:
    alive = [
        NodeView(
            name=names[node["id"]],
            address=node["address"],
            host=node["host"],
            state="alive" if node["draining"] is None else "leaving",
            total=_shown(node["total"]),
            free=_shown(node["available"]),
            leaving=node["draining"],
        )
        for node in there["nodes"]
    ]
    dead = [NodeView(address, address, "", "dead") for address in there["dead"]]
    return [*sorted(alive, key=lambda each: each.name), *dead]


def _shown(resources: dict[str, float]) -> dict[str, float]:
    """Of Ray's names for them those that runs ask for."""
    kinds = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}
    return {kind: resources.get(name, 0.0) for name, kind in kinds.items()}
