"""What a dataset version was made from: a tree of datasets, functions, runs and input files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from penstock.base.errors import Damaged, NewerSchema, NotFound
from penstock.base.hashing import PREFIX
from penstock.data.manifest import Manifest, read_manifest
from penstock.records import Version
from penstock.records.looks import Ancestor

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.meta.port import Reader

_FILES = 10  # inputs that are named one by one
_DEEPEST = 20


def ancestry(stores: Stores, reference: str) -> Ancestor:
    """The tree above a version. What was forgotten or never known is missing.

    NotFound offers the nearest.
    """
    with stores.meta.read() as meta:
        version = meta.get_version("dataset", reference)
        return _dataset(stores, meta, version, ())


def _dataset(stores: Stores, meta: Reader, version: Version, above: tuple[str, ...]) -> Ancestor:
    facts: dict[str, Any] = {
        "digest": version.digest,
        "created_at": version.created_at,
        "rows": version.summary.get("rows"),
        "producer": version.producer,
    }
    try:
        manifest = read_manifest(stores.blobs, version.digest)
    except (NotFound, Damaged, NewerSchema) as error:
        return Ancestor("dataset", version.reference, {**facts, "unreadable": error.what})
    sources = _run(meta, version) + _function(manifest) + _inputs(manifest)
    if len(above) < _DEEPEST:
        for text in version.summary.get("sources", []):
            sources.append(_source(stores, meta, str(text), (*above, version.reference)))
    return Ancestor("dataset", version.reference, facts, sources)


def _source(stores: Stores, meta: Reader, text: str, above: tuple[str, ...]) -> Ancestor:
    try:
        version = meta.get_version("dataset", text)
    except NotFound:
        return Ancestor("dataset", text, {"gone": True})
    if version.reference in above:
        return Ancestor("dataset", version.reference)
    return _dataset(stores, meta, version, above)


def _run(meta: Reader, version: Version) -> list[Ancestor]:
    if not version.producer.startswith("run/"):
        return []
    run_id = version.producer.removeprefix("run/").split("/")[0]
    run = meta.find_run(run_id)
    if run is None:
        return [Ancestor("run", run_id, {"gone": True})]
    return [Ancestor("run", run.name, {"id": run.id, "entry": run.spec.get("entry")})]


def _function(manifest: Manifest) -> list[Ancestor]:
    made = manifest.lineage
    if not made.function:
        return []
    facts = {"code": made.code, "params": made.params, "key": made.key, "git": made.git}
    imported = not made.parts and "inputs" in manifest.tables  # then it is what was named
    what = "files" if imported else "function"
    return [Ancestor(what, made.function, {k: v for k, v in facts.items() if v})]


def _inputs(manifest: Manifest) -> list[Ancestor]:
    """The first files by name, and how many more; from the table "inputs"."""
    table = manifest.table("inputs")
    if table is None:
        return []
    table = table.filter(pc.invert(pc.starts_with(table["uri"], PREFIX)))  # blobs of datasets
    rows = table.slice(0, _FILES).to_pylist()
    named = [
        Ancestor(
            "input",
            str(row["name"]),
            {"bytes": row["bytes"], "digest": PREFIX + row["digest"].removeprefix(PREFIX)},
        )
        for row in rows
    ]
    if table.num_rows <= _FILES:
        return named
    facts = {"inputs": table.num_rows, "bytes": pc.sum(table["bytes"]).as_py()}
    return [*named, Ancestor("input", f"and {table.num_rows - _FILES} more", facts)]
