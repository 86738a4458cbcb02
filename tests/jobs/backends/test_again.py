"""A session that breaks, or stands still: another follows it, and no word is lost."""

import dataclasses
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from penstock.base.errors import LeaseLost
from penstock.base.layout import Layout
from penstock.jobs.backends.again import Again
from penstock.jobs.backends.hosting import Hosted
from penstock.jobs.backends.member import Member
from penstock.jobs.backends.mirror import Mirror
from penstock.jobs.backends.patience import patiently
from penstock.jobs.backends.places import Place
from penstock.jobs.rpc import Session

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60)]

Inbox = queue.Queue[tuple[object, dict[str, Any]]]


class Relay:
    """A way to an agent that may be cut. Owns a thread a connection and one that accepts."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        self.passes = threading.Event()
        self.passes.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                one = self._server.accept()[0]
                other = socket.create_connection(("127.0.0.1", self._to))
                self._open += [one, other]
                for pair in ((one, other), (other, one)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.passes.is_set():
                    return  # it is lost, and so is all that follows
                target.sendall(data)

    def cut(self) -> None:
        """What is under way is lost; nobody is told."""
        self.passes.clear()

    def heal(self) -> None:
        self.passes.set()

    def close(self) -> None:
        self._server.close()
        for each in self._open:
            each.close()


@pytest.fixture
def relay(hosted: Hosted) -> Iterator[Relay]:
    found = Relay(hosted.door.port)
    yield found
    found.close()


def member_of(hosted: Hosted, port: int, inbox: Inbox, tmp_path: Path) -> Member:
    place = Place(hosted.name, dataclasses.replace(hosted.door, port=port), 1)
    session = Session(place.door, inbox)
    session.attach(1, {"pid": 0}, 5.0)
    layout = Layout(tmp_path / "home")
    return Member(place, session, lambda node, ask: Mirror(layout, "a-run", node, ask))


def heard(member: Member, inbox: Inbox, number: int) -> list[int]:
    """Numbers of the agent's words until it says that it has heard so many of ours."""
    seen, deadline = [], time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(queue.Empty):
            source, message = inbox.get(timeout=0.1)
            if not member.is_source(source) or not member.is_new(message.get("seq")):
                continue
            if "attached" in message and member.again is not None:
                assert member.again.session is not None
                member.spoken_to_again(member.again.session, message["attached"]["heard"])
            if "seq" in message:
                seen.append(message["seq"])
            if message.get("beat", {}).get("heard") == number:
                return seen
    raise AssertionError(f"it has not heard {number} words: {seen}")


def test_what_a_session_lost_is_said_by_the_next(
    hosted: Hosted, relay: Relay, tmp_path: Path
) -> None:
    inbox: Inbox = queue.Queue()
    member = member_of(hosted, relay.port, inbox, tmp_path)
    member.send(kill={"gang": 7})
    heard(member, inbox, 1)
    relay.cut()
    for _ in range(3):
        member.send(kill={"gang": 7})
    time.sleep(0.3)
    relay.heal()
    member.try_again(lambda: Again(member.place, 1, inbox))
    seen = heard(member, inbox, 4)
    assert seen == sorted(set(seen))  # each of its own once, in order
    assert member.again is None
    member.send(kill={"gang": 7})
    heard(member, inbox, 5)
    member.close(finally_look=False)


def test_a_machine_on_which_nobody_listens_has_lost_its_agent(
    hosted: Hosted, tmp_path: Path
) -> None:
    inbox: Inbox = queue.Queue()
    member = member_of(hosted, hosted.door.port, inbox, tmp_path)
    hosted.child.kill()
    hosted.child.wait()
    again = Again(member.place, 1, inbox)
    deadline = time.monotonic() + 20
    while (found := inbox.get(timeout=20))[0] is not again:
        assert time.monotonic() < deadline
    assert "nobody listens" in found[1]["lost"]
    member.close(finally_look=False)


def test_another_controller_that_took_over_is_left_alone(
    hosted: Hosted, relay: Relay, tmp_path: Path
) -> None:
    inbox: Inbox = queue.Queue()
    member = member_of(hosted, relay.port, inbox, tmp_path)
    newer = Session(hosted.door, queue.Queue())
    newer.attach(2, {"pid": 0}, 5.0)
    again = Again(member.place, 1, inbox)
    while (found := inbox.get(timeout=20))[0] is not again:
        continue
    assert "older" in found[1]["lost"]
    newer.close()
    member.close(finally_look=False)


def test_something_is_done_while_something_else_is_waited_for() -> None:
    done: list[int] = []
    release = threading.Event()

    def meanwhile() -> None:
        done.append(1)
        if len(done) == 3:
            release.set()

    assert patiently(lambda: release.wait(20), meanwhile) is True
    assert len(done) >= 3
    with pytest.raises(KeyError):
        patiently(lambda: {}["nothing"], meanwhile)

    def lost() -> None:
        raise LeaseLost("another has it", "Leave it.")

    with pytest.raises(LeaseLost):
        patiently(lambda: threading.Event().wait(5), lost)
