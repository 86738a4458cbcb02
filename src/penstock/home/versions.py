"""Dataset and model versions as doors show them, and the one way to move an alias."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from penstock.base.errors import Damaged, Refused
from penstock.home.views import VersionDetail, VersionView
from penstock.records import Alias, Kind, Reference, to_data

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.meta.port import Reader


def listed(stores: Stores, kind: Kind, name: str | None, limit: int) -> list[VersionView]:
    """Newest first, each with the aliases that point at it."""
    with stores.meta.read() as meta:
        if name is not None:
            name = meta.get_version(kind, Reference.parse(name).name).name  # or offer the nearest
        versions = meta.versions(kind, name=name, limit=limit)
        aliases, tags = meta.aliases(kind, name), meta.tags(kind, name)
    pointing = _grouped((each.name, each.version, each.alias) for each in aliases)
    labels = _grouped((each.name, each.version, each.tag) for each in tags)
    keys = [(each.name, each.version) for each in versions]
    return [
        VersionView(each, pointing.get(key, []), labels.get(key, []))
        for each, key in zip(versions, keys, strict=True)
    ]


def _grouped(found: Iterable[tuple[str, int, str]]) -> dict[tuple[str, int], list[str]]:
    """(name, version) -> its texts in order."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name, version, text in sorted(found):
        groups.setdefault((name, version), []).append(text)
    return groups


def resolved(meta: Reader, kind: Kind, reference: str) -> str:
    """NAME@NUMBER of a reference. NotFound offers the nearest."""
    return meta.get_version(kind, reference).reference


def detail(stores: Stores, kind: Kind, reference: str) -> VersionDetail:
    """A version with its aliases and its manifest."""
    with stores.meta.read() as meta:
        version = meta.get_version(kind, reference)
        aliases = [a for a in meta.aliases(kind, version.name) if a.version == version.version]
        tags = [t.tag for t in meta.tags(kind, version.name) if t.version == version.version]
    return VersionDetail(version, aliases, read_json(stores, version.digest), tags)


def read_json(stores: Stores, digest: str) -> dict[str, Any]:
    """A manifest or report blob as plain data, verified against its address."""
    try:
        found: dict[str, Any] = json.loads(stores.blobs.get(digest))
    except ValueError:
        raise Damaged(
            f"blob {digest} is not the JSON that its row says",
            "Run `penstock doctor`; restore the blob store from a good copy.",
            digest=digest,
        ) from None
    return found


def report(stores: Stores, evaluation_id: str) -> dict[str, Any]:
    """The record of an evaluation with the whole report that its digest names."""
    with stores.meta.read() as meta:
        record = meta.get_evaluation(evaluation_id)
    return {**read_json(stores, record.digest), "evaluation": to_data(record)}


def why(stores: Stores, reference: str) -> dict[str, Any]:
    """From an alias down to the function that made its data: `line`, and `steps` with facts."""
    from penstock import registry

    with stores.meta.read() as meta:
        lineage = registry.why(meta, stores.blobs, reference)
    return {"reference": reference, "line": lineage.line(), "steps": to_data(lineage.steps)}


def promote(stores: Stores, reference: str, alias: str, evaluation_id: str | None) -> Alias:
    """Move an alias on the evidence of an evaluation: the one named, or the newest."""
    from penstock import registry

    with stores.meta.read() as meta:
        pinned = resolved(meta, "model", reference)
        if evaluation_id is not None:
            evidence = meta.get_evaluation(evaluation_id)
        elif found := meta.evaluations(model=pinned, limit=1):
            evidence = found[0]
        else:
            raise Refused(
                f"{pinned} was never evaluated, so nothing says that it may become {alias}",
                "Evaluate it first: ps.evaluate(suite, …) in your script.",
                model=pinned,
                alias=alias,
            )
    return registry.promote(stores, pinned, alias, evidence)
