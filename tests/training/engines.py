"""Projects whose ranks run elsewhere than in processes of their controller's machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.ray_nodes import Cluster
from tests.training.conftest import Project

from penstock.base import process


def on_hosts(made: Callable[..., Project], engine: str, **settings: Any) -> Project:
    """Agents with folders of their own below `.nodes`, reached over the network."""
    project = made(engine=engine, **settings)
    project.nodes = project.folder / "nodes"
    project.environment["PENSTOCK_NODE_HOME"] = str(project.nodes)
    return project


def on_cluster(made: Callable[..., Project], cluster: Cluster, **settings: Any) -> Project:
    """Nodes of a Ray cluster, which share this machine's disk unless `blobs` says otherwise."""
    project = made(engine=f"ray:{cluster.address}", **settings)
    own = {key: value for key, value in project.environment.items() if "PENSTOCK" in key}
    project.environment |= cluster.environment | own
    project.nodes = cluster.folder / "nodes"
    if "blobs" not in settings:
        blobs = f"file://{project.folder}/blobs"
        project.environment["PENSTOCK_BLOBS"] = blobs
        project.settings = project.settings.model_copy(update={"blobs": blobs})
    return project


def processes(nodes: Path, *roles: str) -> list[tuple[Path, dict[str, Any]]]:
    """(folder of the agent, row) of those that live in these roles, below all agents' folders."""
    found = []
    for file in sorted(nodes.glob("agents/*/runtime/processes.json")):
        rows = json.loads(file.read_text())
        found += [
            (file.parents[1], row)
            for row in rows
            if row["role"] in roles and process.start_time(row["pid"]) == row["started"]
        ]
    return found


def nothing_is_left(project: Project, cluster: Cluster | None = None) -> None:
    """No process, no folder of an agent or a run, and nothing of Ray's."""
    project.nothing_left()
    left = [str(path) for kind in ("agents", "runs") for path in project.nodes.glob(f"{kind}/*/**")]
    assert not left, "\n".join(left)
    if cluster is not None:
        assert cluster.ask("ray.util.list_named_actors()") == []
        groups = cluster.ask("list(ray.util.placement_group_table().values())")
        assert {row["state"] for row in groups} <= {"REMOVED"}
