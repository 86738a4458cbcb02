"""The caller's side: from descriptions of units to one committed version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.data.clusters.cuts import Layout
from penstock.data.clusters.port import ClusterRows
from penstock.data.clusters.repeats import all_repeated
from penstock.data.clusters.units import Task
from penstock.data.columns import Column, column_of_type
from penstock.data.keys import KEY, KeyFunction, column_texts
from penstock.data.manifest import Lineage, Manifest, write_manifest
from penstock.data.preparation.asking import Asked, as_dicts, asked_of
from penstock.data.preparation.assembly import columns_of, repeated_keys
from penstock.data.preparation.bad import account
from penstock.data.preparation.commit import commit
from penstock.data.preparation.from_function import told_types
from penstock.data.preparation.past import Past, Prepared, Request, reason, reuse
from penstock.data.preparation.running import OnProgress, Progress, Ran
from penstock.data.preparation.schema import merged
from penstock.data.preparation.storing import refuse_empty, shard_rows, shards_of, written_of
from penstock.data.preparation.tables import column_from
from penstock.data.preparation.whole import Whole
from penstock.data.shards import Written
from penstock.data.types import Type, Types
from penstock.jobs.source import git_commit
from penstock.jobs.stores import pinned
from penstock.records.references import check_name

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

CODE = 1  # raised when equal rows would give another version
_KEYS = 1 << 22  # that are looked at together


def make_version(
    stores: Stores,
    name: str,
    rows: ClusterRows,
    *,
    key: str | KeyFunction | None = None,
    splits: Any = None,
    by: str | None = None,
    types: Types | None = None,
    on_progress: OnProgress | None = None,
) -> Prepared:
    """A version of the rows, or the one that has the same rows, key and splits already.

    Arguments as `prepare` has them. The rows of a split come in order of their key: numbers by
    value, text by code points, bytes by bytes; hashes of content, where these are the keys.
    Raises BadInput, UserCodeFailed, Unavailable and what the stores raise; nothing is visible then.
    """
    check_name(name, "dataset name")
    asked = asked_of(name, [], key, splits, by, types, {}, Whole(), "fail", 0.0, None, None, None)
    rows.check(stores)
    column, own = _key_column(rows, asked)
    with pinned(stores.meta):
        task = Task(column, asked.rule.spec(), _types(asked.types)).put(stores.blobs)
        named = rows if own else rows.keyed(key if callable(key) else None)
        results = named.units(task, column)
        if on_progress is not None:
            count = sum(each["rows"] for each in results)
            on_progress(Progress("units", len(results), len(results), count))
        written = _written(stores, asked, rows, results, task, on_progress)
        return _committed(stores, asked, rows, written)


def _only(schema: pa.Schema, column: str) -> pa.Table:
    """No rows of that column; of some types of others there can be none."""
    there = [schema.field(column)] if column in schema.names else []
    return pa.schema(there).empty_table()


def _key_column(rows: ClusterRows, asked: Asked) -> tuple[str, bool]:
    """The column that names rows, and whether it is there already. Raises BadInput."""
    schema = rows.schema()
    column = asked.key if isinstance(asked.key, str) else KEY
    if isinstance(asked.key, str) or (asked.key is None and KEY in schema.names):
        column_texts(_only(schema, column), column, "the key column")
        _refuse_key_type(column_of_type(column, schema.field(column).type))
        return column, True
    if KEY in schema.names:
        raise BadInput(
            f'the data has a column "{KEY}", which is the name that the key gets',
            f'Pass key="{KEY}" if it names the samples, or rename it.',
        )
    return KEY, False


def _refuse_key_type(column: Column) -> None:
    whole = column.kind == "number" and "int" in column.dtype
    if not whole and column.kind not in ("text", "bytes"):
        raise BadInput(
            f'the key column "{column.name}" holds {column}, which cannot name a sample',
            "A key is an integer, text or bytes, and never missing.",
            key=column.name,
        )


def _types(types: Mapping[str, Type]) -> dict[str, tuple[str, dict[str, Any]]]:
    return {name: (each.meaning, each.options) for name, each in types.items()}


def _written(
    stores: Stores,
    asked: Asked,
    rows: ClusterRows,
    results: list[dict[str, Any]],
    task: str,
    on_progress: OnProgress | None,
) -> Written:
    if not results:
        raise BadInput(f"{rows.label} has no rows", "Look at its filters, and at its inputs.")
    found = [(_place(each), True, [column_from(c) for c in each["columns"]]) for each in results]
    columns, key = columns_of(asked, Ran(results, merged(found), True, account([]), 0, 0))
    layout = Layout(results, asked.rule.names)
    shared = {"columns": as_dicts(columns), "key": key, "schemas": layout.schemas}

    def make(wanted: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
        return rows.shards(task, list(wanted.values()), shared)

    def refuse_repeated(found: Iterable[Mapping[str, Any]]) -> None:
        named, count = all_repeated([each["repeated"] for each in found])
        if count:
            content = asked.key is None and key not in rows.schema().names
            raise repeated_keys(named, count, key, rows.unique, content)

    total = sum(each["rows"] for each in results)
    refuse_empty(layout.heaps, total)
    if layout.keys is not None:  # rows of one key may be in two splits
        payloads = [{**each, "keys": True} for each in layout.keys.payloads(_KEYS)]
        refuse_repeated(rows.shards(task, payloads, shared))
    step = shard_rows(total, sum(each["bytes"] for each in results))
    made = shards_of(stores, layout.heaps, step, shared, make, on_progress)
    refuse_repeated(made.values())
    return written_of(stores, asked, layout.heaps, columns, key, made, total)


def _place(result: Mapping[str, Any]) -> Callable[[str], str]:
    return lambda _column: str(result["where"])


# the commit


def _committed(stores: Stores, asked: Asked, rows: ClusterRows, written: Written) -> Prepared:
    request = _request(asked, rows, written)
    past = Past.of(stores, request)
    same = "because its rows, key and splits are the same"
    if past.whole and past.newest is not None:
        found = reuse(stores, request, past, None)
        if found.reference == past.newest.reference:
            return replace(found, why=f"reused {found.reference}, {same}")
        return replace(
            found, why=f"reused the rows of {past.known_as} as {found.reference}, {same}"
        )
    why = reason(request, past, False)
    manifest = _manifest(stores, asked, request, written)
    producer = f"prepare/{asked.name}/{request.content}"
    version, new = commit(stores, request, manifest, producer)
    if not new:
        return Prepared(
            version, True, f"reused {version.reference}, because another process was first"
        )
    return Prepared(version, False, f"running, because {why}")


def _request(asked: Asked, rows: ClusterRows, written: Written) -> Request:
    shards = [[each.split, each.digest] for each in written.shards]
    content = digest_json(
        ["dataset of a cluster's rows", CODE, shards, asked.key_name, asked.rule.spec(),
         told_types(asked.types)]
    )  # fmt: skip
    lineage = Lineage(rows.label, "", content, key=asked.key_name, git=git_commit(Path.cwd()))

    def inputs(old: Manifest) -> list[str]:
        ours = {digest for _, digest in shards}
        return [] if set(old.shards.digests()) == ours else ["its rows changed"]

    return Request(
        name=asked.name,
        shares=asked.rule.shares,
        rule=asked.rule.spec(),
        lineage=lineage,
        inputs=inputs,
    )


def _manifest(stores: Stores, asked: Asked, request: Request, written: Written) -> Manifest:
    return write_manifest(
        stores.blobs,
        columns=written.columns,
        key=written.key,
        splits=written.splits,
        shards=written.shards,
        statistics=written.statistics,
        lineage=request.lineage,
        checks=written.checks,
        tables=written.tables,
        notes={"rule": asked.rule.spec()},
    )
