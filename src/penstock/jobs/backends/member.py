"""One agent of a fleet: its session, what it has of the gang, what was heard of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from penstock.jobs.backends.again import Again
from penstock.jobs.backends.mirror import Ask, Mirror
from penstock.jobs.backends.places import Place
from penstock.jobs.rpc import Door, Message, Session

_PASSING = frozenset({"beat", "ack"})  # said again soon, by themselves


class Member:
    """Used by the controller's one thread, but for its mirror.

    ranks  of the gang, here
    gone   none of them is left
    ready  its image has imported what ranks need
    leaving  its machine is about to be taken away
    again  whoever tries to speak to it once more; None while its session is sound
    lends  its door for the other agents; None until it told
    """

    def __init__(
        self, place: Place, session: Session, mirror: Callable[[str, Ask], Mirror]
    ) -> None:
        self.place = place
        self.session = session
        self.again: Again | None = None
        self.ranks: list[int] = []
        self.gone = True
        self.ready = False
        self.leaving = False
        self.lends: Door | None = None
        self.heard_at = time.monotonic()
        self._said = 0  # number of the newest word that must not be lost
        self._unheard: deque[Message] = deque()
        self._seq = 0
        self.mirror = mirror(place.name, self._files)
        self._waiting: deque[tuple[int, int]] = deque()  # (the fleet's number, the agent's)

    @property
    def name(self) -> str:
        return self.place.name

    def is_of_use(self) -> bool:
        """For a gang that is to begin at once."""
        return not self.leaving and (self.ready or bool(self.ranks))

    def is_new(self, seq: int | None) -> bool:
        """Whether a word was not heard before; after a session broke, words are said again."""
        self.heard_at = time.monotonic()
        if seq is None:
            return True
        new = seq > self._seq
        self._seq = max(seq, self._seq)
        return new

    def passed_on(self, number: int) -> None:
        """Its last word, as the fleet's word `number`: kept by the agent until that is in rows."""
        self._waiting.append((number, self._seq))

    def acknowledge(self, upto: int = 0) -> None:
        """Tell the agent what it need not keep: all that was heard before the first of its words
        that stands in no row yet. upto: the fleet's number up to which they do"""
        while self._waiting and self._waiting[0][0] <= upto:
            self._waiting.popleft()
        seq = self._waiting[0][1] - 1 if self._waiting else self._seq
        if seq > 0:
            self.send(ack=seq)

    def send(self, **message: Any) -> None:
        """What the agent has to hear is numbered and kept until it has: see `spoken_to_again`."""
        if not message.keys() <= _PASSING:
            self._said += 1
            message["n"] = self._said
            self._unheard.append(message)
        self.session.send(message)

    def has_heard(self, number: int) -> None:
        """The agent, of our words."""
        while self._unheard and self._unheard[0]["n"] <= number:
            self._unheard.popleft()

    def is_source(self, source: object) -> bool:
        return source is self.session or (
            self.again is not None and source in (self.again, self.again.session)
        )

    def try_again(self, again: Callable[[], Again]) -> None:
        if self.again is None:
            self.again = again()

    def spoken_to_again(self, session: Session, heard: int) -> None:
        """By a new session; what the agent had not heard by the old one is said by this one."""
        self.session.close()
        self.session, self.again = session, None
        self.has_heard(heard)
        for message in self._unheard:
            session.send(message)

    def _files(self, have: dict[str, int]) -> Iterator[Message]:
        return self.session.files(have)

    def close(self, finally_look: bool) -> None:
        """finally_look  it is still there, and its ranks are not"""
        if self.again is not None:
            self.again.close()
        if finally_look:
            self.mirror.close(finally_look=True)
        self.session.close()  # which ends what its mirror waits for
        if not finally_look:
            self.mirror.close(finally_look=False)
