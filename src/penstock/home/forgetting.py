"""What preparation remembers of its work, and when that is forgotten.

Remembered are outputs of units and of kept steps, shards, rows of functions, digests of files; maps
hold what their units gave. What a version of any dataset was made of stays while the version does,
for the next one runs only what changed. What only versions needed that are dropped goes with them.
What no version needs (of a preparation that failed, was stopped or killed and not called again)
stays a while, so that the same call goes on; so does what a killed collector forgot to forget.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.base.errors import Damaged, LeaseHeld, NewerSchema, NotFound
from penstock.base.hashing import PREFIX
from penstock.base.process import Identity
from penstock.records import Memory, Run, Version

if TYPE_CHECKING:
    from penstock.data import MadeOf
    from penstock.jobs.stores import Stores
    from penstock.meta.port import Reader, Writer

UNFINISHED_SECONDS = 7 * 86400.0  # how long a preparation that did not end well can be continued
_KINDS = ("unit", "rows", "digests")
_LEASE_SECONDS = 60.0
_AT_ONCE = 1000
_ALL = 1 << 31


@dataclass(frozen=True, slots=True)
class Needs:
    """What versions need of memories; keys: of units and of kept steps, without prefix."""

    keys: frozenset[str]
    made: MadeOf

    def has(self, memory: Memory) -> bool:
        value = memory.value
        if _bare(memory.key) in self.keys or value.get("of") in self.keys:
            return True
        if "pieces" in value:  # of a function's rows
            return any(_bare(piece[1]) in self.made.inputs for piece in value["pieces"])
        if set(value) == {"digests"}:  # of files
            return all(each in self.made.inputs for each in value["digests"])
        return _bare(value.get("digest", "")) in self.made.shards


def needs(stores: Stores, versions: Iterable[Version]) -> Needs:
    """Of these versions. One that cannot be read needs nothing: nothing can be made from it."""
    from penstock import data

    made = data.MadeOf()
    for version in versions:
        with suppress(Damaged, NewerSchema, NotFound):
            made |= data.made_of(stores.blobs, version.digest)
    steps = {
        step
        for memory in _memories(stores, "unit")
        if _bare(memory.key) in made.units
        for step in memory.value.get("steps", ())
    }
    return Needs(made.units | steps, made)


def forget(stores: Stores, dropped: Needs, unfinished: float) -> None:
    """Forget what no version needs: at once where dropped ones did, else after `unfinished`
    seconds."""
    with stores.meta.read() as meta:
        old = meta.now() - unfinished
        versions = meta.versions("dataset", limit=_ALL)
    living = needs(stores, versions)
    for kind in _KINDS:
        gone: list[str] = []
        for memory in _memories(stores, kind):
            if (memory.created_at <= old or dropped.has(memory)) and not living.has(memory):
                gone.append(memory.key)
        for at in range(0, len(gone), _AT_ONCE):
            with stores.meta.write() as meta:
                meta.forget(gone[at : at + _AT_ONCE])


def let_go_of_maps(stores: Stores, grace: float, unfinished: float) -> None:
    """Let go of what the units of preparations gave: finished ones have it in versions."""
    with stores.meta.read() as meta:
        over = [run.id for run in meta.runs(limit=_ALL) if _is_over(meta, run, grace, unfinished)]
    for run_id in over:
        with suppress(LeaseHeld), stores.meta.write() as meta:
            if _is_over(meta, meta.get_run(run_id), grace, unfinished):
                _let_go(meta, run_id)


def _is_over(meta: Reader, run: Run, grace: float, unfinished: float) -> bool:
    """Whether nobody will continue a preparation, and it still holds something."""
    if run.work != "prepare" or not meta.unit_counts(run.id):
        return False
    now = meta.now()
    if run.ended_at is not None:
        return run.ended_at <= now - (grace if run.state == "finished" else unfinished)
    lease = meta.find_lease(f"run/{run.id}")  # of a dead one it stays as it was
    return run.state == "running" and lease is not None and lease.expires_at <= now - unfinished


def _let_go(meta: Writer, run_id: str) -> None:
    """Under its lease, so that an owner who only slept commits nothing any more."""
    lease = meta.take_lease(f"run/{run_id}", str(Identity.mine()), _LEASE_SECONDS)
    if meta.get_run(run_id).ended_at is None:
        meta.change_run(run_id, state="stopped", ended_at=meta.now())
        meta.event(f"run/{run_id}", "run.stopped", {})
    meta.drop_units(run_id)
    meta.release_lease(lease)


def _memories(stores: Stores, kind: str) -> Iterator[Memory]:
    after = ""
    while True:
        with stores.meta.read() as meta:
            found = meta.memories(kind, after)
        if not found:
            return
        yield from found
        after = found[-1].key


def _bare(digest: Any) -> str:
    return str(digest).removeprefix(PREFIX)
