"""Speaking again to an agent whose session broke, or that has been silent for a while.

A connection may break, or stand still behind a cut that is healed, while the agent and its ranks
go on. Both ends keep what the other has not heard (`member`, `agent.outbox`), so another session
goes on where the old one ended. Whether the agent is lost meanwhile is the fleet's to say.
"""

from __future__ import annotations

import queue
import socket
import threading

from penstock.base.errors import LeaseLost, PenstockError
from penstock.jobs.backends.places import Place
from penstock.jobs.rpc import Message, Session

_REACH = 0.4  # seconds for the machine to take a connection; a packet that was lost comes too late
_ATTACH = 0.8  # seconds for the agent to answer
_PAUSE = 0.05  # seconds between two attempts


class Again:
    """One thread, which ends with a session, when nobody listens there, or by `close`.

    What it gets arrives in the inbox: its session's words, or `(self, {"lost": why})`.
    session  that it tries now; one that is given up says nothing that counts
    """

    def __init__(
        self, place: Place, generation: int, inbox: queue.Queue[tuple[object, Message]]
    ) -> None:
        self.session: Session | None = None
        self._place, self._generation, self._inbox = place, generation, inbox
        self._over = threading.Event()
        threading.Thread(target=self._try, name="again", daemon=True).start()

    def close(self) -> None:
        """The session that it has is closed by whoever took it."""
        self._over.set()

    def _try(self) -> None:
        while not self._over.is_set():
            try:
                if self._is_reached() and self._attached():
                    return
            except ConnectionRefusedError:
                self._lost("its machine is there, and nobody listens")
            except LeaseLost as error:
                self._lost(str(error))
            self._over.wait(_PAUSE)

    def _is_reached(self) -> bool:
        """Raises ConnectionRefusedError where only the agent is gone."""
        door = self._place.door
        try:
            with socket.create_connection((door.host, door.port), _REACH):
                return True
        except ConnectionRefusedError:
            raise
        except OSError:
            return False

    def _attached(self) -> bool:
        session = Session(self._place.door, self._inbox)
        self.session = session
        try:
            session.attach(self._generation, {"pid": 0, "again": True}, _ATTACH)
        except LeaseLost:
            raise
        except PenstockError:
            return False
        return True

    def _lost(self, why: str) -> None:
        self._over.set()
        self._inbox.put((self, {"lost": why}))
