"""A run's devices in the hands of its controller: claimed before its gang starts, given back with
its lease.

A claim is a row, written under the run's lease, so that an owner that lost the run changes nothing.
It has no life of its own: it counts as long as the run has an owner or processes on this machine.
So what a dead run held is free at once here, and from another machine when its lease ran out; and
a controller that is started again by its agent finds the devices of its ranks still claimed.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from penstock.base.errors import BadInput
from penstock.jobs import queueing
from penstock.jobs.control import owner
from penstock.jobs.devices import Devices, found_here
from penstock.jobs.remains import read_processes
from penstock.jobs.stores import Stores
from penstock.meta import Reader, Writer
from penstock.records import Claim

_TICK = 0.2  # seconds between looks at what others hold


def wish(device: str, workers: int, threads: int, there: Devices, cores: bool) -> dict[str, int]:
    """kind -> how many a gang wants. Raises BadInput where there can never be so many.

    device   "cuda": a GPU for each rank; "auto": likewise, where there are so many; "cpu": none
    workers  ranks; of a run inside its script 1
    cores    whether cores are claimed: `threads` for each rank, as far as there are so many
    """
    wants = {}
    if device == "cuda" and len(there.gpus) < workers:
        gpus = ", ".join(there.gpus) or "none"
        raise BadInput(
            f'device="cuda" for {workers} ranks needs {workers} GPUs, and there are '
            f"{len(there.gpus)} ({gpus})",
            'Ask for fewer workers, or device="cpu"; the setting `devices` names GPUs that cannot '
            "be listed, and CUDA_VISIBLE_DEVICES hides some.",
            workers=workers,
            gpus=list(there.gpus),
        )
    if device != "cpu" and len(there.gpus) >= workers:
        wants["gpu"] = workers
    if cores:
        wants["core"] = min(workers * threads, len(there.cores))
    return wants


class Claiming:
    """One run's, by its owner. `commit` writes under the run's lease."""

    def __init__(
        self, stores: Stores, run_id: str, commit: Callable[[Callable[[Writer], Any]], Any]
    ) -> None:
        self._stores = stores
        self._run_id = run_id
        self._commit = commit
        self._host = socket.gethostname()
        self._there = Devices((), ())
        self._device: str | None = None
        self._said: list[str] | None = None
        self._short: dict[str, Any] | None = None  # "auto" wanted more GPUs than there are
        self.wants: dict[str, int] = {}
        self.holds: list[str] = []

    def want(self, spec: dict[str, Any]) -> None:
        """What a run's spec asks for, of what is here now. One that says no `device`, such as a
        preparation of data, claims none. Raises BadInput."""
        self._device = spec.get("device")
        if self._device is None:
            return
        settings = self._stores.settings
        self._there = found_here(settings.devices)
        world, threads = int(spec["world_size"]), int(spec.get("threads", 1))
        self.wants = wish(self._device, world, threads, self._there, settings.claim_cores)
        short = self._device == "auto" and 0 < len(self._there.gpus) < world
        body = {"ranks": world, "gpus": list(self._there.gpus)} if short else None
        if body is not None and body != self._short:  # an attempt after it need not say it again
            self._commit(lambda tx: tx.event(f"run/{self._run_id}", "devices.short", body))
        self._short = body

    def has_all(self) -> bool:
        """Whether the run holds what it wants, claiming it where that can be; else it stands in the
        queue, which an event says. To be asked again from time to time."""
        if self._device is None:
            return True
        with self._stores.meta.read() as db:
            if not self.wants:
                old = any(each.run_id == self._run_id for each in db.claims())
            elif self._said is not None and self._next(db) == (None, self._said):
                return False
        if self.wants:
            return bool(self._commit(self._try))
        self.holds = []
        if old:
            self._commit(lambda tx: tx.drop_claim(self._run_id))
        return True

    def wait(self, is_over: Callable[[], bool]) -> bool:
        """Until it has all; False, and out of the queue, when `is_over` says so first."""
        while not self.has_all():
            time.sleep(_TICK)
            if is_over():
                self._commit(lambda tx: tx.drop_claim(self._run_id))
                return False
        return True

    def environment(self) -> dict[str, str]:
        """What ranks are to see. Where no GPU is known, nothing is hidden: they may find some."""
        if self._device is None or (self._device != "cpu" and not self._there.gpus):
            return {}
        gpus = [each.removeprefix("gpu/") for each in self.holds if each.startswith("gpu/")]
        return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}

    def payload(self) -> dict[str, Any]:
        """What ranks are to know: cores to run on, and which of the GPUs of this machine."""
        if self._device is None:
            return {}
        cores = [int(each.removeprefix("core/")) for each in self.holds if each[:5] == "core/"]
        gpus = [self._there.of("gpu").index(each) for each in self.holds if each[:4] == "gpu/"]
        named = self._there.named
        return {"device": self._device, "cores": cores, "gpus": gpus, "named": named}

    def _try(self, tx: Writer) -> bool:
        tx.lock_claims(self._host)
        for claim in tx.claims(self._host):
            if claim.run_id != self._run_id and not is_live(tx, claim, self._stores):
                tx.drop_claim(claim.run_id)
        devices, ahead = self._next(tx)
        mine, _ = self._claims(tx)
        if devices is not None:
            if devices != mine.holds:
                tx.put_claim(replace(mine, holds=devices))
                waited = tx.now() - mine.since if self._said is not None else 0.0
                body = {"devices": devices, "waited": round(waited, 3)}
                tx.event(f"run/{self._run_id}", "devices.granted", body)
            self.holds = devices
            return True
        self._said = ahead
        body = {"wants": self.wants, "shown": queueing.show(self.wants), "waits_for": ahead}
        cursor = tx.event(f"run/{self._run_id}", "devices.queued", body)
        tx.put_claim(replace(mine, ticket=mine.ticket or cursor, holds=[]))
        return False

    def _next(self, db: Reader) -> tuple[list[str] | None, list[str]]:
        """Devices that it gets now, or None; and whom it waits for, a line each."""
        mine, others = self._claims(db)
        if mine.holds:
            return mine.holds, []
        placed = mine if mine.ticket else replace(mine, ticket=db.last_event() + 1)
        devices = queueing.grant(placed, others, self._there)
        ahead = queueing.in_the_way(placed, others) if devices is None else []
        return devices, [told(db, each) for each in ahead]

    def _still_fits(self, old: Claim) -> bool:
        known = {each for kind in self.wants for each in self._there.of(kind)}
        return old.wants == self.wants and known.issuperset(old.holds)

    def _claims(self, db: Reader) -> tuple[Claim, list[Claim]]:
        """The run's own claim, old or new, and the live ones of others here."""
        others = []
        mine = Claim(self._run_id, self._host, 0, db.now(), self.wants)
        for each in db.claims(self._host):
            if each.run_id == self._run_id:
                mine = each if self._still_fits(each) else mine
            elif is_live(db, each, self._stores):
                others.append(each)
        return mine, others


def is_live(db: Reader, claim: Claim, stores: Stores) -> bool:
    """Whether a claim counts: its run has an owner, or still processes on this machine."""
    if owner(db.find_lease(f"run/{claim.run_id}"), db.now()) is not None:
        return True
    if claim.host != socket.gethostname():
        return False
    return bool(read_processes(stores.layout.runtime(f"run/{claim.run_id}", create=False)))


def told(db: Reader, claim: Claim) -> str:
    """ "run base holds gpu/GPU-a", or that it waits too."""
    run = db.find_run(claim.run_id)
    name = claim.run_id if run is None else run.name
    if claim.holds:
        return f"run {name} holds {', '.join(claim.holds)}"
    return f"run {name} waits for {queueing.show(claim.wants)}"
