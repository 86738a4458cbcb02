"""The account of a run, from its home: rows, events and signals gathered for `ledger`."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from penstock.base.errors import BadInput
from penstock.jobs import control
from penstock.jobs.stores import Stores
from penstock.jobs.stragglers import Straggler
from penstock.meta.port import Reader
from penstock.monitoring.ledger import Ledger, ledger
from penstock.monitoring.live import Live, live
from penstock.monitoring.slow import slow_ranks
from penstock.monitoring.throughput import Throughput, throughput
from penstock.monitoring.told import Tracks
from penstock.records import Attempt, Checkpoint, Event, Run

_PAGE = 10_000  # events that are read at once
_SHOWN = 8  # events and checkpoints that somebody who watches sees
_UNSEEN = frozenset({"checkpoint.committed", "signals.kept"})
ALIVE = frozenset({"pending", "running", "stopping"})


@dataclass(frozen=True, slots=True)
class Account:
    """A run's ledger as it was at a moment.

    state  as shown: `interrupted` where nobody carries it out
    at     seconds since 1970
    throughput  over all steps
    stragglers  ranks that keep the others waiting, in the newest attempt's newest steps
    """

    run: str
    name: str
    state: str
    at: float
    ledger: Ledger
    throughput: Throughput
    stragglers: list[Straggler]


@dataclass(frozen=True, slots=True)
class Watched:
    """What `penstock runs watch` shows."""

    account: Account
    live: Live


@dataclass(frozen=True, slots=True)
class _Seen:
    run: Run
    attempts: list[Attempt]
    checkpoints: list[Checkpoint]


class Accountant:
    """Of one run. Safe for threads; may be asked again and again, and reads only what came since.

    Raises NotFound for a run that is not there, BadInput for one that is no training.
    """

    def __init__(self, stores: Stores, run: str) -> None:
        self._stores = stores
        with stores.meta.read() as db:
            found = db.get_run(run)
        self.run_id = found.id
        if found.work != "train":
            raise BadInput(
                f'"{found.name}" is no training, so nobody kept account of its seconds',
                "See what it did: penstock runs show; trainings: penstock runs list.",
                run=found.id,
            )
        self._tracks = Tracks(stores.layout.signals(self.run_id))
        self._events: list[Event] = []
        self._cursor = 0
        self._lock = threading.Lock()

    def look(self) -> Account:
        """The account now."""
        with self._lock:
            return self._look()[0]

    def watch(self) -> Watched:
        """The account with all that a person who watches wants to see."""
        with self._lock:
            account, seen = self._look()
            alive = account.state in ALIVE
            shown = [each for each in self._events if each.kind not in _UNSEEN][-_SHOWN:]
            steps = seen.run.spec.get("steps")
            told, at = self._tracks.told, account.at
            peak = self._stores.settings.peak_flops
            now = live(steps, seen.attempts, shown, seen.checkpoints, told, at, alive, peak)
            return Watched(account, now)

    def _look(self) -> tuple[Account, _Seen]:
        """Rows are read before signals, so that no attempt is without its own."""
        with self._stores.meta.read() as db:
            run = db.get_run(self.run_id)
            now = db.now()
            state = control.state_of(run, db.find_lease(f"run/{run.id}"), now)
            seen = _Seen(run, db.attempts(run.id), db.checkpoints(run.id)[:_SHOWN])
            self._read_events(db)
        told = self._tracks.look()
        found = ledger(run, seen.attempts, self._events, told, now, state in ALIVE)
        through = throughput(told, self._stores.settings.peak_flops)
        return Account(run.id, run.name, state, now, found, through, slow_ranks(told)), seen

    def _read_events(self, db: Reader) -> None:
        while True:
            page = db.events(after=self._cursor, subject=f"run/{self.run_id}", limit=_PAGE)
            self._events += page
            self._cursor = page[-1].seq if page else self._cursor
            if len(page) < _PAGE:
                return
