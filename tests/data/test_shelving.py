"""Shards of a cluster's rows, made from the units of tasks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penstock.base.errors import Damaged
from penstock.blobs import open_blobs
from penstock.data.at_rest import decode
from penstock.data.clusters.sending import results
from penstock.data.clusters.shelving import shelved
from penstock.data.clusters.units import Task, write_units
from penstock.data.columns import Column
from penstock.data.preparation.splitting import rule_of
from penstock.data.types import mark_key

ROWS = 2048


def test_a_unit_that_changed_before_its_shard_is_made_is_damage(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    blobs = open_blobs(url)
    task = Task("id", rule_of({"all": 1}, None).spec(), {})
    table = pa.table({"id": np.arange(ROWS), "x": np.arange(ROWS) / 2})
    (unit,) = write_units(blobs, task, "p", [table])
    columns = mark_key([Column(c["name"], c["kind"], c["dtype"]) for c in unit["columns"]], "id")
    shared = {"columns": [asdict(each) for each in columns], "key": "id"}
    payload = {"slices": [[unit["blob"], 0, ROWS]], "rows": ROWS, "more": 0, "blocks": True}
    digest = task.put(blobs)

    path = blobs.path(unit["blob"])
    assert path is not None
    good = path.read_bytes()
    path.chmod(0o644)
    at = good.index(np.float64(500.5).tobytes())
    path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    with pytest.raises(Damaged, match="is damaged"):
        results([shelved(url, digest, payload, shared)])
    path.write_bytes(good)
    (made,) = results([shelved(url, digest, payload, shared)])
    rows = decode(blobs.get(made["digest"]), made["format"], made["digest"])
    assert rows["x"].to_pylist() == table["x"].to_pylist()
