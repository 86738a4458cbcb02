"""commit_many.py HOME shards|units|limit MANY: prints what it took, as JSON."""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock.base.settings import load_settings
from penstock.data.columns import Column
from penstock.data.manifest import Lineage, Split, read_manifest, write_manifest
from penstock.jobs.stores import open_stores
from penstock.records import Run

BATCH = 500


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def digest(number):
    return f"sha256:{number:064x}"


def shard_table(many):
    return pa.table(
        {
            "split": pa.repeat("all", many),
            "number": pa.array(np.arange(many)),
            "digest": pa.array([digest(i * 7919) for i in range(many)]),
            "rows": pa.repeat(10_000, many),
            "bytes": pa.repeat(1 << 26, many),
            "format": pa.repeat("arrow", many),
        }
    )


def shards(stores, many):
    """A version as `prepare` commits it, its shards already written."""
    table = shard_table(many)
    began = time.perf_counter()
    made = write_manifest(
        stores.blobs,
        columns=[Column("id", "number", "int64")],
        key="id",
        splits=[Split("all", 10_000 * many, many, many << 26, 1.0, digest(1))],
        shards=table,
        statistics={},
        lineage=Lineage("benchmarks:commit", "code"),
        checks={},
    )
    with stores.meta.write() as meta:
        summary = {"rows": made.rows, "splits": {"all": made.rows}, "bytes": made.bytes}
        meta.add_version("dataset", "large", made.digest, "benchmark", summary, made.refs)
    committed = time.perf_counter()
    with stores.meta.read() as meta:
        (version,) = meta.versions("dataset", "large")
    listed = time.perf_counter()
    again = read_manifest(stores.blobs, version.digest)
    if len(again.shards) != many or int(again.ends_of("all")[-1]) != 10_000 * many:
        raise SystemExit("another version was read")
    opened = time.perf_counter()
    return {"commit": committed - began, "list": listed - committed, "open": opened - listed}


def units(stores, many):
    """Units given out and committed as the controller does, 500 a transaction."""
    began = time.perf_counter()
    with stores.meta.write() as meta:
        meta.add_run(Run("run", "run", "prepare", "running", {}))
        meta.add_units("run", {f"u{i:07}": {"input": f"file-{i}"} for i in range(many)})
    done = []
    committed = 0
    while True:
        with stores.meta.write() as meta:
            results = {u.key: {"rows": 10, "blob": digest(int(u.key[1:]))} for u in done}
            committed += len(meta.finish_units("run", results))
            done = meta.lease_units("run", 1, BATCH)
        if not done:
            break
    if committed != many:
        raise SystemExit(f"{committed} units were committed")
    return {"units": time.perf_counter() - began}


def limit(home, many):
    """SQLite, as many rows in as many transactions, with nothing around it."""
    with closing(sqlite3.connect(home / "limit.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE units (key TEXT PRIMARY KEY, state TEXT, result TEXT)")
        db.execute("CREATE TABLE refs (owner TEXT, digest TEXT, PRIMARY KEY (owner, digest))")
        began = time.perf_counter()
        db.execute("BEGIN")
        rows = ((f"u{i:07}", "waiting", None) for i in range(many))
        db.executemany("INSERT INTO units VALUES (?, ?, ?)", rows)
        db.execute("COMMIT")
        for at in range(0, many, BATCH):
            numbers = range(at, min(at + BATCH, many))
            db.execute("BEGIN IMMEDIATE")
            for state in ("leased", "done"):
                rows = ((state, digest(i), f"u{i:07}") for i in numbers)
                db.executemany("UPDATE units SET state = ?, result = ? WHERE key = ?", rows)
            db.executemany("INSERT INTO refs VALUES ('run', ?)", ((digest(i),) for i in numbers))
            db.execute("COMMIT")
        return {"units": time.perf_counter() - began}


def main():
    home, kind, many = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if kind == "limit":
        print(json.dumps(limit(home, many)))
        return
    with open_stores(load_settings(folder=home, home=home)) as stores:
        stores.meta.wait_events(0, timeout=0)
        before = peak()
        found = {"shards": shards, "units": units}[kind](stores, many)
        print(json.dumps({**found, "memory": peak() - before}))


main()
