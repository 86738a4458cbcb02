"""Every byte of a version against its hash: manifest, tables, shards, objects."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from penstock.base.errors import Damaged, NewerSchema, NotFound
from penstock.blobs import Blobs
from penstock.data.manifest import Manifest, read_manifest
from penstock.records import Version
from penstock.records.looks import DataDamage, DataVerdict

_THREADS = 4  # reading waits for disks and networks, and hashing holds no lock
_BATCH = 256  # blobs that are under way at once

Progress = Callable[[int, int], None]


class _Part(NamedTuple):
    part: str
    where: str
    digest: str
    bytes: int


def verify(blobs: Blobs, version: Version, on_progress: Progress | None = None) -> DataVerdict:
    """Read all that a version needs and compare; each blob once.

    on_progress  called with (bytes read, bytes in all) after every blob
    Raises Unavailable when the store does not answer, and NewerSchema.
    """
    try:
        manifest = read_manifest(blobs, version.digest)
    except NewerSchema:
        raise
    except (Damaged, NotFound) as error:
        lost = DataDamage("manifest", "", error.facts.get("digest", version.digest), error.what)
        return DataVerdict(version.reference, False, 1, 0, [lost])
    parts = _parts(blobs, manifest)
    total, done = sum(part.bytes for part in parts), 0
    damages: list[DataDamage] = []
    threads = min(_THREADS, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(threads, "penstock-verify") as pool:
        left = iter(parts)
        while batch := list(islice(left, _BATCH)):
            found = pool.map(lambda part: _damage(blobs, part), batch)
            for part, damage in zip(batch, found, strict=True):
                done += part.bytes
                if damage is not None:
                    damages.append(damage)
                if on_progress is not None:
                    on_progress(done, total)
    return DataVerdict(version.reference, not damages, 1 + len(parts), total, damages)


def _parts(blobs: Blobs, manifest: Manifest) -> list[_Part]:
    found: dict[str, _Part] = {}
    for name, digest in manifest.tables.items():
        found[digest] = _Part("table", name, digest, _size(blobs, digest))
    for shard in manifest.shards:
        part = _Part("shard", f"{shard.split}/{shard.number}", shard.digest, shard.bytes)
        found.setdefault(shard.digest, part)
    for digest in _objects(manifest):
        found.setdefault(digest, _Part("object", "", digest, _size(blobs, digest)))
    return list(found.values())


def _objects(manifest: Manifest) -> list[str]:
    """Digests of the blobs that rows refer to; none where the table itself is damaged."""
    try:
        table = manifest.table("objects")
    except (Damaged, NotFound):
        return []  # the table is a part of its own, and told there
    return [] if table is None else [str(each) for each in table["digest"].to_pylist()]


def _size(blobs: Blobs, digest: str) -> int:
    found = blobs.stat(digest)
    return 0 if found is None else found.size


def _damage(blobs: Blobs, part: _Part) -> DataDamage | None:
    try:
        blobs.verify(part.digest)
    except (Damaged, NotFound) as error:
        return DataDamage(part.part, part.where, part.digest, error.what)
    return None
