"""Garbage collection of blobs: what no row refers to and no live writer may still need.

A blob goes in two steps, one collection apart or more. First it is condemned: out of sight of
`put`, so that whoever needs it from now on writes it anew, while readers still find it. Later it
is purged, if no row refers to it and no live pin is older than its condemnation: only a writer
that pinned before could have found it "already there" and be about to commit a row for it. A
writer commits its rows before it unpins; we look at pins and rows in one view; so whoever is no
longer seen as a pin is seen as a row.

One collection runs at a time, owner of the lease "gc". Its time to live is hours, because a
purge cannot be fenced by a generation: a collector that only sleeps must not be overtaken. A
dead one on the same machine is replaced at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from penstock.base.process import Identity
from penstock.blobs import Blobs, Stat
from penstock.home.copies import sweep
from penstock.jobs.stores import Stores
from penstock.meta import Meta, Reader
from penstock.records import Lease

_LEASE = "gc"
_LEASE_SECONDS = 6 * 3600.0
_BATCH = 500
_AT_ONCE = 8
_SKEW = 300.0  # seconds by which the clocks of the two stores, or one clock with itself, may differ
GRACE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did, in blobs; `bytes` is the room that `purged` gave back.

    copies  of parts of checkpoints that this machine's disk had before a far store, and their bytes
    """

    condemned: int = 0
    purged: int = 0
    restored: int = 0
    bytes: int = 0
    copies: int = 0
    copy_bytes: int = 0


def collect_garbage(
    stores: Stores, *, dry_run: bool = False, grace_seconds: float = GRACE_SECONDS
) -> Collected:
    """Purge what was condemned before, then condemn what nobody refers to now.

    dry_run        count what would be done, change nothing
    grace_seconds  blobs younger than this are not condemned, and condemned ones not purged;
                   for readers who look a digest up in a row that is going away

    Raises LeaseHeld when another collection runs, and what the stores raise.
    """
    if dry_run:
        return _collect(stores, None, grace_seconds)
    holder = str(Identity.mine())
    with stores.meta.write() as writer:
        lease = writer.take_lease(_LEASE, holder, _LEASE_SECONDS)
    try:
        return _collect(stores, lease, grace_seconds)
    finally:
        with stores.meta.write() as writer:
            writer.release_lease(lease)


def _collect(stores: Stores, lease: Lease | None, grace: float) -> Collected:
    meta, blobs = stores.meta, stores.blobs
    purged = restored = room = condemned = 0
    for batch in _batches(blobs.condemned()):
        back, gone = _judge(meta, batch, grace)
        restored, purged = restored + len(back), purged + len(gone)
        room += sum(stat.size for stat in gone)
        if lease is not None:
            _still_mine(meta, lease)
            _apply(blobs, back, gone)
    for batch in _batches(blobs.list()):
        doomed = _unwanted(meta, batch, grace)
        condemned += len(doomed)
        if lease is not None:
            _still_mine(meta, lease)
            _each(blobs.condemn, doomed)
    copies, copy_bytes = sweep(stores, dry_run=lease is None, grace_seconds=grace)
    return Collected(condemned, purged, restored, room, copies, copy_bytes)


def _judge(meta: Meta, batch: list[Stat], grace: float) -> tuple[list[Stat], list[Stat]]:
    """Condemned blobs to restore, and those to purge; the rest waits. One view of the rows."""
    with meta.read() as reader:
        pinned = reader.oldest_pin()
        wanted = reader.referenced([stat.digest for stat in batch])
        now = reader.now()
    back = [stat for stat in batch if stat.digest in wanted]
    gone = [
        stat
        for stat in batch
        if stat.digest not in wanted
        and stat.modified <= now - grace
        and (pinned is None or pinned > stat.modified + _SKEW)
    ]
    return back, gone


def _apply(blobs: Blobs, back: list[Stat], gone: list[Stat]) -> None:
    _each(blobs.restore, back)
    _each(blobs.purge, gone)


def _each(step: Callable[[str], None], stats: list[Stat]) -> None:
    """Several at once: in an object store each is a few round trips. Raises what a step raises."""
    if stats:
        with ThreadPoolExecutor(min(_AT_ONCE, len(stats)), "penstock-gc") as pool:
            for _ in pool.map(step, [stat.digest for stat in stats]):
                pass


def _unwanted(meta: Meta, batch: list[Stat], grace: float) -> list[Stat]:
    """Visible blobs that are old enough and that no row refers to."""
    with meta.read() as reader:
        old = _older(reader, batch, grace)
        wanted = reader.referenced([stat.digest for stat in old])
    return [stat for stat in old if stat.digest not in wanted]


def _older(reader: Reader, batch: list[Stat], grace: float) -> list[Stat]:
    limit = reader.now() - grace
    return [stat for stat in batch if stat.modified <= limit]


def _still_mine(meta: Meta, lease: Lease) -> None:
    """Renew, so that a collection of any length is never overtaken. Raises LeaseLost."""
    with meta.write(lease) as writer:
        writer.renew_lease(lease, _LEASE_SECONDS)


def _batches(stats: Iterable[Stat]) -> Iterator[list[Stat]]:
    source = iter(stats)
    while batch := list(islice(source, _BATCH)):
        yield batch
