"""A run on ranks that a launcher started: this process is one of them, from meeting to farewell."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch.distributed as dist

from penstock.base import process
from penstock.base.errors import LeaseHeld, PenstockError, Unavailable, from_dict
from penstock.jobs.stores import Stores
from penstock.records import Run as Row
from penstock.training import group
from penstock.training.deciding import Decided
from penstock.training.follow import preempted, stopped
from penstock.training.launched import signals
from penstock.training.launched.exchange import Exchange, meet
from penstock.training.launched.link import RankLink
from penstock.training.launched.owner import Owner
from penstock.training.launched.raytrain import Notice
from penstock.training.launched.seat import RAY_TRAIN, Seat
from penstock.training.launched.watch import Watch

_LEASE_SLACK = 5.0  # seconds


class Launched:
    """One rank's part of a run. `begin`, then work with `link` and `payload`, then one `end_*`.

    folders  of the project's sources, for the watch for hangs; None: nobody watches
    """

    def __init__(
        self,
        stores: Stores,
        seat: Seat,
        say: Callable[[str], None],
        folders: list[str] | None = None,
    ) -> None:
        self.stores = stores
        self.seat = seat
        self.link: RankLink
        self.payload: dict[str, Any] = {}
        self._say = say
        self._folders = folders
        self._owner: Owner | None = None
        self._leaving: str | None = None
        self._grouped = False
        self._exchange: Exchange

    def leave(self, why: str) -> None:
        """From a signal handler: all ranks are to save after the same step, and to leave."""
        self._leaving = why
        if hasattr(self, "link"):
            self.link.leaving = why

    # -- the beginning --------------------------------------------------------------------------

    def begin(self, choose: Callable[[], Decided], tell: Callable[[Decided], None]) -> Decided:
        """Meet, let rank 0 decide, own the run and tell all. On every rank the same answer, or the
        same error."""
        group.check_joined(self.seat.world_size)
        self._exchange = meet(self.seat)
        if self.seat.rank == 0:
            try:
                found, begun = self._own(choose, tell)
            except PenstockError as error:
                self._exchange.put("begin", {"error": error.as_dict()})
                self._exchange.wait_heard(self.seat.world_size - 1)
                raise
            told = {**asdict(found), "begun": begun}
            self._exchange.put("begin", told)
        else:
            told = self._exchange.await_("begin")
            if "error" in told:
                self._exchange.count("heard", 1)
                raise from_dict(told["error"])
            begun = told.pop("begun")
            found = Decided(**{**told, "run": Row(**told["run"])})
        if begun is None:
            self._nothing_begins()
        else:
            self._sit_down(begun)
        return found

    def _own(
        self, choose: Callable[[], Decided], tell: Callable[[Decided], None]
    ) -> tuple[Decided, dict[str, Any] | None]:
        found = self._patiently(choose)
        tell(found)
        if found.reused:
            return found, None
        is_leaving = [Notice()] if self.seat.launcher == RAY_TRAIN else []
        self._owner = Owner(
            self.stores, found.run, self._exchange, self.seat.world_size, self._say, *is_leaving
        )
        begun = self._owner.open()
        self._owner.start()
        return found, begun

    def _patiently(self, choose: Callable[[], Decided]) -> Decided:
        """An owner on this machine is alive or not; of another machine's only the lease tells, and
        that of one that died with the gang before runs out. Ray Train begins the next gang while
        the last one's processes end."""
        deadline = time.monotonic() + self.stores.settings.lease_seconds + _LEASE_SLACK
        while True:
            try:
                return choose()
            except LeaseHeld as held:
                here = held.facts.get("host") == process.Identity.mine().host
                here = here and self.seat.launcher != RAY_TRAIN
                if here or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _sit_down(self, begun: dict[str, Any]) -> None:
        seat, exchange = self.seat, self._exchange
        payload = begun["payload"]
        self.payload = {
            **payload,
            "rank": seat.rank,
            "world_size": seat.world_size,
            "home": str(self.stores.layout.root),
            "blobs": self.stores.blobs.url,
        }
        aim = self._owner.aim if self._owner is not None else None
        watch = None
        if self._folders is not None and begun["hang_seconds"] is not None:
            watch = Watch(self.stores, seat, begun, self._folders)
        self.link = RankLink(exchange, seat, begun, self.stores.blobs, aim, watch)
        self.link.leaving = self._leaving
        self.link.joined(str(process.Identity.mine()))

    def join(self) -> None:
        """Join the ranks' process group, unless the script did that itself."""
        seat = self.seat
        if seat.world_size > 1 and not dist.is_initialized():
            group.join_over(self._exchange.group_store(), seat.rank, seat.world_size, seat.local[1])
            self._grouped = True

    def _nothing_begins(self) -> None:
        if self.seat.rank == 0:
            self._exchange.wait_heard(self.seat.world_size - 1)
        else:
            self._exchange.count("heard", 1)

    # -- the end --------------------------------------------------------------------------------

    def finished(self, result: dict[str, Any]) -> Row:
        """The function returned here. Waits for the others; raises what ended the run."""
        return self._outcome(self.link.ended("finished", result=result))

    def drained(self) -> BaseException:
        """All ranks saved and left. Returns what is to be raised."""
        try:
            self._outcome(self.link.ended("drained"))
        except BaseException as error:  # noqa: BLE001 - RunStopped, SystemExit, or what went wrong
            return error
        return AssertionError("a run that was drained did not finish")

    def raised(self, error: PenstockError) -> PenstockError:
        """The function raised here. Returns what is to be raised: this, or what it came from."""
        try:
            end = self.link.ended("raised", error=error.as_dict())
        except Unavailable as gone:
            gone.__cause__ = error
            return gone
        self._part()
        told = end.get("error")
        return error if told is None or told == error.as_dict() else from_dict(told)

    def left(self, why: str) -> None:
        """Ctrl-C, or an exit of the script's own, which nobody can wait with."""
        with contextlib.suppress(PenstockError):
            self.link.ended("interrupted", why=why)
            self._part()

    def _outcome(self, end: dict[str, Any]) -> Row:
        self._part()
        if "error" in end:
            raise from_dict(end["error"])
        run = Row(**end["run"])
        if end["outcome"] == "finished":
            return run
        raise self._left(end["outcome"], run)

    def _left(self, outcome: str, run: Row) -> BaseException:
        """How a script ends whose run is to be gone on with. With exit code 0 where anything else
        would count as a failure, or would make the launcher start the ranks again."""
        if outcome == "preempted" and not signals.under_slurm():
            return preempted(run)
        error = preempted(run) if outcome == "preempted" else stopped(run)
        self._say(error.what)
        if self.seat.launcher == RAY_TRAIN:
            return error  # `carried.Loop` takes it
        if outcome == "preempted" and self.seat.rank == 0:
            self._say(signals.requeue(self.stores.settings.slurm_requeue))
        sys.stderr.flush()
        return SystemExit(0)

    def _part(self) -> None:
        if self._grouped and dist.is_initialized():
            dist.destroy_process_group()
        self.link.bye()
        if self._owner is not None:
            self._owner.farewell()
            self._exchange.close()
