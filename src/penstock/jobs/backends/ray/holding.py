"""What a Ray cluster has, and what runs of Penstock hold of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from penstock.jobs.backends.ray.cluster import Cluster

_RESERVED = ("PENDING", "PREPARED", "CREATED", "RESCHEDULING")


def told(cluster: Cluster) -> dict[str, Any]:
    """nodes  of `planning.Node`, those that live
    dead   addresses of those that do not
    held   {run, place, node, resources, state} of each placement group of a run: state is Ray's

    Raises Unavailable, AccessDenied, BadInput.
    """
    nodes = [dataclasses.asdict(node) for node in cluster.nodes()]
    ray = cluster.ray
    known = cluster.call("nodes that ended", ray.nodes)
    dead = [row["NodeManagerAddress"] for row in known if not row["Alive"]]
    rows = cluster.call("placement groups", ray.util.placement_group_table).values()
    held = [_held(row) for row in rows if row["state"] in _RESERVED and "/node-" in row["name"]]
    return {"nodes": nodes, "dead": dead, "held": held}


def _held(row: dict[str, Any]) -> dict[str, Any]:
    """A group of `places`: it has one bundle, and the name RUN/PLACE."""
    run, _, place = row["name"].rpartition("/")
    node = next(iter(row["bundles_to_node_id"].values()), "")
    resources: dict[str, float] = next(iter(row["bundles"].values()), {})
    shown = {name: amount for name, amount in resources.items() if name in ("CPU", "GPU")}
    about = {"run": run, "place": place, "node": node, "state": row["state"].lower()}
    return {**about, "resources": shown}
