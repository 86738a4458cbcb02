"""Retention of dataset versions: the newest stay, and all that anything refers to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.base.errors import NotFound, Refused
from penstock.home.forgetting import UNFINISHED_SECONDS, forget, let_go_of_maps, needs
from penstock.home.gc import GRACE_SECONDS
from penstock.records import Reference, Version
from penstock.records.looks import Retired

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.meta.port import Reader

_ALL = 1 << 31


def retire(
    stores: Stores,
    name: str | None,
    keep: int,
    *,
    dry_run: bool = False,
    grace_seconds: float = GRACE_SECONDS,
    unfinished_seconds: float = UNFINISHED_SECONDS,
) -> Retired:
    """Drop the older versions of a dataset (of all datasets) that nothing needs.

    A version stays when it is the newest of its name, has an alias or a tag, is named by a run, an
    evaluation or another dataset, or is younger than `grace_seconds` (somebody may be about to
    name it); of the others the newest `keep` stay. Rows go, and what preparation remembers of
    them, or of nothing that is there (see `forgetting.py`); bytes follow with collections of
    garbage, which heed pins.
    """
    with stores.meta.read() as meta:
        names = meta.names("dataset") if name is None else [_known(meta, name)]
    kept: dict[str, list[str]] = {}
    dropped: list[Version] = []
    for each in names:
        with stores.meta.read() as meta:
            reasons = _reasons(meta, each, grace_seconds)
        kept |= {version.reference: why for version, why in reasons if why}
        free = [version for version, why in reasons if not why]
        gone = [v for v in free[keep:] if dry_run or _drop(stores, v, kept)]
        dropped += gone
    if not dry_run:
        let_go_of_maps(stores, grace_seconds, unfinished_seconds)
        forget(stores, needs(stores, dropped), unfinished_seconds)
    return Retired(keep, [version.reference for version in dropped], kept)


def _known(meta: Reader, name: str) -> str:
    return meta.get_version("dataset", Reference.parse(name).name).name


def _reasons(meta: Reader, name: str, grace: float) -> list[tuple[Version, list[str]]]:
    """Every version of a name, newest first, with why it stays whatever its age."""
    versions = meta.versions("dataset", name, limit=_ALL)
    found: dict[int, list[str]] = {version.version: [] for version in versions}
    found[max(found)].append("newest")
    for alias in meta.aliases("dataset", name):
        found[alias.version].append(f"alias {alias.alias}")
    for tag in meta.tags("dataset", name):
        found[tag.version].append(f'tag "{tag.tag}"')
    for number, owners in meta.uses("dataset", name).items():
        if number in found:
            found[number] += owners
    young = meta.now() - grace
    for version in versions:
        if version.created_at > young:
            found[version.version].append("young")
    return [(version, found[version.version]) for version in versions]


def _drop(stores: Stores, version: Version, kept: dict[str, list[str]]) -> bool:
    """Whether the row went; one that somebody names since we looked stays."""
    try:
        with stores.meta.write() as meta:
            meta.drop_version("dataset", version.name, version.version)
    except Refused as error:
        kept[version.reference] = list(error.facts.get("reasons", []))
        return False
    except NotFound:
        return False
    return True
