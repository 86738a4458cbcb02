"""The second round: a shard, on another machine."""

from __future__ import annotations

from typing import Any

from penstock.data.clusters.merging import merged
from penstock.data.clusters.sending import told
from penstock.data.clusters.units import Task
from penstock.data.preparation.shelf import made
from penstock.data.preparation.tables import column_from


def shelved(url: str, task: str, payload: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """`shelf.made` of merged rows, and "repeated" (`repeats.py`); or the error that it raised.

    payload  of `Sorted.payloads`; with "keys" nothing is made: it is asked which come twice
    shared   {"columns", "key", "schemas": of runs}
    """

    def work() -> list[dict[str, Any]]:
        _, blobs = Task.read(url, task)
        columns = [column_from(each) for each in shared["columns"]]
        key = shared["key"]
        if payload.get("keys"):
            columns = [each for each in columns if each.name == key]
        rows, twice = merged(blobs, payload, columns, key, shared["schemas"])
        found = {} if payload.get("keys") else made(blobs, rows, payload, columns, key)
        return [{**found, "repeated": twice}]

    return told(work)[0]
