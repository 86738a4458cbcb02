"""The second round: a shard, on another machine."""

from __future__ import annotations

from typing import Any

from penstock.data.clusters.sending import told
from penstock.data.clusters.units import Task
from penstock.data.preparation import shelf
from penstock.jobs.map import UnitContext


def shelved(url: str, task: str, payload: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """`shelf.shard` on another machine, or the error that it raised."""

    def work() -> list[dict[str, Any]]:
        _, blobs = Task.read(url, task)
        nowhere: Any = None  # a shard needs no home
        return [shelf.shard(payload, UnitContext(blobs, nowhere, shared, 0))]

    return told(work)[0]
