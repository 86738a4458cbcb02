"""How launched ranks meet, and what they send each other: JSON in a TCPStore that rank 0 hosts.

The store listens on a free port; where it is to be found stands in the launcher's own store. It
listens on loopback where all ranks are on one machine, else on the address that the launcher gave
rank 0's. Its keys begin with a token, which only those know who can read the launcher's store:
as for torch.distributed itself, the network between the ranks is trusted. Nothing is unpickled.

No wait is for ever: rank 0 beats once a second, and who waits for it looks whether it still does.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, TCPStore, rendezvous  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _get_default_store

from penstock.base.errors import PenstockError, Unavailable
from penstock.training.launched.seat import RAY_TRAIN, Seat

_PIECE = 1 << 20  # bytes of one value; a store takes at most 8 MiB
_OPERATION = timedelta(seconds=60)
_MEETING = 300.0  # seconds for which ranks wait for each other's start
_SILENCE = 120.0  # seconds without a beat, after which rank 0 counts as dead
_BEAT = 1.0
_HEARING = 30.0  # seconds for which rank 0 waits for the others to hear what it says last
_kept: list[Any] = []  # launchers' stores that this process hosts: others may come later
_met = 0  # how many times the ranks of this process met


class Exchange:
    """One connection to the store. For one thread; `another` gives one for another thread."""

    def __init__(self, address: dict[str, Any], store: Any) -> None:
        self.address = address
        self._store = store
        self._named = PrefixStore(address["token"], store)
        self._over = threading.Event()
        self._beating: threading.Thread | None = None

    def another(self) -> Exchange:
        return _connect(self.address)

    def group_store(self) -> Any:
        """For a process group: its keys are apart from ours."""
        return PrefixStore("group", self.another()._named)

    def put(self, key: str, body: Any) -> None:
        """Write a value in pieces; it is there once its last piece is."""
        with _reachable():
            data = json.dumps(body)  # ASCII: a character is a byte
            pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
            for number, piece in enumerate(pieces[1:], 1):
                self._named.set(f"{key}/{number}", piece)
            self._named.set(key, f"{len(pieces)}:{pieces[0]}")

    def has(self, key: str) -> bool:
        with _reachable():
            return bool(self._named.check([key]))

    def get(self, key: str, keep: bool = True) -> Any:
        """A value that is there."""
        with _reachable():
            count, _, first = self._named.get(key).partition(b":")
            names = [f"{key}/{number}" for number in range(1, int(count))]
            data = first + b"".join(self._named.get(name) for name in names)
            if not keep:
                for name in (*names, key):
                    self._named.delete_key(name)
        return json.loads(data)

    def await_(self, key: str, keep: bool = True) -> Any:
        """A value that comes; Unavailable once rank 0 has been silent for too long."""
        beats, heard, pause = -1, time.monotonic(), 0.001
        while not self.has(key):
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
            if (now_beats := self.count("beats")) != beats:
                beats, heard = now_beats, time.monotonic()
            elif time.monotonic() - heard > _SILENCE:
                raise _gone(f"it has been silent for {_SILENCE:.0f} s")
        return self.get(key, keep)

    def count(self, key: str, more: int = 0) -> int:
        """Add to a counter and read it."""
        with _reachable():
            return int(self._named.add(key, more))

    def wait_heard(self, others: int) -> None:
        """In rank 0: wait until the others have counted "heard", not for dead ones; then close."""
        deadline = time.monotonic() + _HEARING
        while self.count("heard") < others and time.monotonic() < deadline:
            time.sleep(0.01)
        self.close()

    def beat(self) -> None:
        """In rank 0: from now on, in a thread of its own, until `close`."""
        line = self.another()

        def beat() -> None:
            with contextlib.suppress(PenstockError):
                while not self._over.wait(_BEAT):
                    line.count("beats", 1)

        self._beating = threading.Thread(target=beat, name="penstock-beat", daemon=True)
        self._beating.start()

    def close(self) -> None:
        """In rank 0: nobody waits for it any more."""
        self._over.set()
        if self._beating is not None:
            self._beating.join()


def meet(seat: Seat) -> Exchange:
    """Find each other: rank 0 hosts a store and announces it, the others connect to it.

    Raises Unavailable where the others do not come.
    """
    global _met
    _met += 1
    with _reachable("the launcher's store"):
        launchers = _store_of(seat)
        key = f"penstock/{_met}"
        if seat.rank == 0:
            found = _host(seat)
            launchers.set(key, json.dumps(found.address))
            found.beat()
            return found
        return _find(launchers, key)


def _store_of(seat: Seat) -> Any:
    if seat.launcher == RAY_TRAIN:
        return _get_default_store()  # of the process group, in which its workers are already
    for name, value in seat.variables().items():
        os.environ.setdefault(name, value)
    patience = timedelta(seconds=_MEETING)
    found, _, _ = next(rendezvous("env://", seat.rank, seat.world_size, timeout=patience))
    _kept.append(found)
    return found


def _host(seat: Seat) -> Exchange:
    host = "127.0.0.1" if seat.one_machine else _own_address(seat.host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((host, 0))
    port = listener.getsockname()[1]
    store = TCPStore(
        host,
        port,
        is_master=True,
        timeout=_OPERATION,
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )
    address = {"host": host, "port": port, "token": secrets.token_hex(16)}
    found = Exchange(address, store)
    found.put("open", True)
    return found


def _own_address(host: str) -> str:
    """This machine's address under the name that the launcher gave it."""
    for name in (host, socket.gethostname()):
        with contextlib.suppress(OSError):
            for family, *_, address in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM):
                with contextlib.suppress(OSError), socket.socket(family) as tried:
                    tried.bind((address[0], 0))
                    return str(address[0])
    raise Unavailable(
        f"rank 0 cannot listen on {host}",
        "MASTER_ADDR must be an address of rank 0's machine.",
        host=host,
    )


def _find(launchers: Any, key: str) -> Exchange:
    """Rank 0's store. What a launcher's store still says of a gang that is gone leads nowhere, or
    to a store that does not know the token, and is read again."""
    deadline = time.monotonic() + _MEETING
    launchers.wait([key], timedelta(seconds=_MEETING))
    while True:
        address = json.loads(launchers.get(key))
        try:
            found = _connect(address)
            if found.has("open"):
                return found
        except Unavailable:
            pass
        if time.monotonic() > deadline:
            raise _gone("nothing answers where it said it would be")
        time.sleep(0.2)


def _connect(address: dict[str, Any]) -> Exchange:
    with _reachable():
        # a store's client tells each failure to connect on stderr, with a stack
        socket.create_connection((address["host"], address["port"]), 5.0).close()
        store = TCPStore(
            address["host"],
            address["port"],
            is_master=False,
            timeout=_OPERATION,
            wait_for_workers=False,
        )
    return Exchange(address, store)


@contextlib.contextmanager
def _reachable(what: str = "rank 0, which owns the run,") -> Iterator[None]:
    """Errors of the connection as one of ours."""
    try:
        yield
    except (RuntimeError, OSError) as error:  # torch.distributed's own are RuntimeErrors
        raise _gone(str(error).split("\n")[0], what) from None


def _gone(why: str, what: str = "rank 0, which owns the run,") -> Unavailable:
    return Unavailable(
        f"{what} does not answer: {why}",
        "The launcher starts all ranks again, or you do; the run goes on from its last checkpoint.",
    )
