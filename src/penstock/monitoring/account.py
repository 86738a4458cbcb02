"""The account of a run, from its home: rows, events and signals gathered for `ledger`."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.base.errors import BadInput
from penstock.jobs import control
from penstock.jobs.stores import Stores
from penstock.meta.port import Reader
from penstock.monitoring.ledger import Ledger, ledger
from penstock.monitoring.told import Tracks
from penstock.records import Event

_PAGE = 10_000  # events that are read at once
ALIVE = frozenset({"pending", "running", "stopping"})


@dataclass(frozen=True, slots=True)
class Account:
    """A run's ledger as it was at a moment.

    state  as shown: `interrupted` where nobody carries it out
    at     seconds since 1970
    """

    run: str
    name: str
    state: str
    at: float
    ledger: Ledger


class Accountant:
    """Of one run; may be asked again and again, and reads only what came since.

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

    def look(self) -> Account:
        """The account now. Rows are read before signals, so that no attempt is without its own."""
        with self._stores.meta.read() as db:
            run = db.get_run(self.run_id)
            now = db.now()
            state = control.state_of(run, db.find_lease(f"run/{run.id}"), now)
            attempts = db.attempts(run.id)
            self._read_events(db)
        told = self._tracks.look()
        found = ledger(run, attempts, self._events, told, now, state in ALIVE)
        return Account(run.id, run.name, state, now, found)

    def _read_events(self, db: Reader) -> None:
        while True:
            page = db.events(after=self._cursor, subject=f"run/{self.run_id}", limit=_PAGE)
            self._events += page
            self._cursor = page[-1].seq if page else self._cursor
            if len(page) < _PAGE:
                return
