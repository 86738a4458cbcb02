"""The commit of a dataset version: row, references, memory and event in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.data.manifest import Manifest
from penstock.records import Version

if TYPE_CHECKING:
    from penstock.data.preparation.past import Request
    from penstock.jobs.stores import Stores


def commit(
    stores: Stores,
    asked: Request,
    manifest: Manifest,
    producer: str,
    aside: Manifest | None = None,
) -> tuple[Version, bool]:
    """The version and its event, or the version that this producer made already.

    aside  of the version NAME-quarantine, which is committed with it
    """
    splits = {name: each.rows for name, each in manifest.splits.items()}
    summary: dict[str, Any] = {"rows": manifest.rows, "splits": splits, "bytes": manifest.bytes}
    if asked.sources:
        summary["sources"] = list(asked.sources)
    with stores.meta.write() as meta:
        found = meta.find_produced("dataset", producer)
        if found is not None:
            return found, False
        version = meta.add_version(
            "dataset", asked.name, manifest.digest, producer, summary, manifest.refs
        )
        if aside is not None:
            rows = {"rows": aside.rows, "bytes": aside.bytes}
            splits = {split: each.rows for split, each in aside.splits.items()}
            meta.add_version(
                "dataset",
                f"{asked.name}-quarantine",
                aside.digest,
                f"{producer}/quarantine",
                {**rows, "splits": splits, "of": version.reference},
                aside.refs,
            )
        memory = {"manifest": manifest.digest, "reference": version.reference}
        meta.remember(asked.content, "dataset", memory, manifest.refs)
        meta.event(
            f"dataset/{asked.name}",
            "dataset.committed",
            {
                "version": version.version,
                "digest": manifest.digest,
                "function": asked.lineage.function,
                **summary,
            },
        )
    return version, True
