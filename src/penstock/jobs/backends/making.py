"""A run's agents, or in a keeper their places, as the setting `engine` says."""

from __future__ import annotations

from typing import Any, Literal

from penstock.base.settings import Settings
from penstock.jobs import orders
from penstock.jobs.backends.crew import Crew
from penstock.jobs.backends.engines import check, hosts_of, is_here, is_ray
from penstock.jobs.backends.fleet import Fleet
from penstock.jobs.backends.keeper.asking import KeptPlaces
from penstock.jobs.backends.mirror import Ask, Mirror
from penstock.jobs.backends.patience import Meanwhile, nothing
from penstock.jobs.backends.places import Places
from penstock.jobs.backends.port import Agents
from penstock.jobs.backends.processes import LocalAgent
from penstock.jobs.stores import Stores
from penstock.records import Run

Shape = Literal["gang", "map"]


def agents_of(
    stores: Stores,
    run: Run,
    shape: Shape,
    restart: list[str] | None,
    meanwhile: Meanwhile = nothing,
) -> Agents:
    """A run's agents, as its controller sees them; none is started yet.

    restart    the command line that starts the controller again; None: it is no process
    meanwhile  called several times a second while machines elsewhere are waited for
    Raises BadInput for a setting that names no engine.
    """
    runtime = stores.layout.runtime(f"run/{run.id}")
    spec = orders.for_agent(stores, run, restart)
    if is_here(stores.settings):
        return LocalAgent(runtime, spec)
    check(stores.settings)

    def mirror(node: str, ask: Ask) -> Mirror:
        return Mirror(stores.layout, run.id, node, ask)

    engine = stores.settings.engine
    places = {"engine": engine, **_wanted(stores.settings, run)}
    kept = KeptPlaces(runtime, {**spec, **places})
    if shape == "map":
        return Crew(kept, mirror, meanwhile)
    return Fleet(kept, mirror, meanwhile, stores.settings.cluster_spares)


def _wanted(settings: Settings, run: Run) -> dict[str, Any]:
    """Of a place. resources: of one rank; "auto": a GPU too, where there is one for each."""
    each = {"CPU": float(run.spec.get("threads", 1)), **settings.cluster_resources}
    kinds = {"cuda": {"GPU": 1.0}, "auto": {"auto": 1.0}}
    return {
        "resources": each | kinds.get(run.spec.get("device", "cpu"), {}),
        "strategy": settings.cluster_strategy,
        "labels": settings.cluster_labels,
        "packages": settings.cluster_packages,
        "waits": settings.cluster_autoscales,
    }


def open_places(spec: dict[str, Any]) -> Places:
    """In a keeper: what its engine has for the run of the spec."""
    if is_ray(spec["engine"]):
        from penstock.jobs.backends.ray.places import RayPlaces

        return RayPlaces(spec)
    from penstock.jobs.backends.hosts import Hosts

    found = hosts_of(spec["engine"])
    assert found is not None
    return Hosts(spec, *found)
