"""Agents on several machines, before their controller as if they were one.

What the controller wants is split among them, what they say is merged. A session that breaks, or
over which nothing comes for a second, is followed by another (`again`). An agent is lost when it
shows no sign of life for `SILENCE` seconds, or nobody listens at its door, whatever those say who
started it; then the others' ranks are ended, because a gang is replaced together, and the
controller hears that the agents are lost. It starts a new gang on what is left and what can be had
beside it. What a lost agent goes on with, behind a network that is cut, matters to nobody: its
session is closed, and rows are written by the controller alone, under its lease.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from penstock.base import log
from penstock.base.errors import LeaseLost, PenstockError
from penstock.jobs.backends.again import Again
from penstock.jobs.backends.blame import Blame
from penstock.jobs.backends.gang import Gang
from penstock.jobs.backends.keeper.asking import KeptPlaces
from penstock.jobs.backends.member import Member
from penstock.jobs.backends.mirror import Ask, Mirror
from penstock.jobs.backends.nearby import Nearby
from penstock.jobs.backends.patience import Meanwhile, nothing, patiently
from penstock.jobs.backends.places import Place, share
from penstock.jobs.backends.states import States
from penstock.jobs.backends.supply import Supply
from penstock.jobs.rpc import Door, Message, Session

SILENCE = 2.5  # seconds without a word, after which an agent is lost; they beat every 0.5
_DOUBT = 1.1  # seconds without a word, after which another session is tried
_BEAT = 1.0  # seconds between two signs of life of ours
_LOOK = 0.1  # seconds between two looks for silence
_ATTACH = 2.0  # seconds for an agent to answer
_CLEAR = 3.0  # seconds for the others' ranks to be gone
_log = log.logger("controller")


class Fleet:
    """See the module, and `port.Agents`. Used by the controller's one thread.

    mirror     (agent's name, how to ask it) -> the mirror of its files
    meanwhile  called while something is waited for that may take long
    spares     agents that stand by, for when one is lost
    Owns the sessions, the mirrors, and a thread that gives agents a sign of life until `end`.
    """

    _joined = False  # whether ranks begin one by one, as there is room

    def __init__(
        self,
        places: KeptPlaces,
        mirror: Callable[[str, Ask], Mirror],
        meanwhile: Meanwhile = nothing,
        spares: int = 0,
    ) -> None:
        self._places = places
        self._mirror = mirror
        self._meanwhile = meanwhile
        self._raw: queue.Queue[tuple[object, Message]] = queue.Queue()
        self._out: deque[Message] = deque()
        self._members: dict[str, Member] = {}
        tell = lambda *word: self._raw.put(word)  # noqa: E731
        attach = self._attach_patiently
        self._supply = Supply(places, self._members, attach, tell, self._joined, spares)
        self._blame = Blame(self._members, self._supply.set_aside, self._out.append)
        self._nearby = Nearby()
        self._states = States(self._tell_agent)
        self._gang = Gang(0, 0)
        self._numbers = 0  # of what was passed on
        self._losing: tuple[Message, float] | None = None  # what is told, at the latest then
        self._holds: dict[str, dict[str, Any]] | None = None  # of those that were found
        self._generation = 0
        self._listened = time.monotonic()
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    # -- beginnings and ends --------------------------------------------------------------------

    def find(self, generation: int) -> bool:
        self._generation = generation
        try:
            self._places.owned_by(generation)
            if not self._places.is_there():
                return False
            self._holds = {}
            for place in patiently(self._places.find, self._meanwhile):
                self._members[place.name] = self._attach_patiently(place)
                self._members[place.name].ready = True
        except LeaseLost:
            raise
        except PenstockError as error:
            _log.warning("agents are there but do not answer; replacing them: %s", error)
            self.end()
            return False
        return bool(self._members)

    def start(self, generation: int) -> None:
        """Agents are started when there is a gang for them."""
        self._generation = generation
        self._places.owned_by(generation)
        if self._ended.is_set():  # what was found was no good
            self._ended, self._beating = threading.Event(), None
            self._supply.open()

    def lost(self) -> None:
        """They were given up when they were found to be lost."""

    def kept(self) -> tuple[int, int, int]:
        return self._states.kept()

    def room(self) -> int | None:
        return self._supply.room() if self._gang.is_elastic and self._members else None

    def end(self) -> None:
        self._supply.close()
        self._ended.set()
        self._all(kill={"gang": self._gang.number})
        self._wait_for_the_end()
        patiently(self._close_all, self._meanwhile)
        self._members.clear()
        patiently(self._places.end, self._meanwhile)

    def _close_all(self) -> None:
        for member in self._members.values():
            member.close(finally_look=member.gone)

    def _wait_for_the_end(self) -> None:
        """So that all that ranks wrote is taken, and nothing is left of them."""
        until = time.monotonic() + _CLEAR
        while any(not member.gone for member in self._members.values()):
            self.hear(0.05)
            self._meanwhile()
            if time.monotonic() > until:
                return

    def _attach_patiently(self, place: Place) -> Member:
        """Raises Unavailable, LeaseLost."""
        return patiently(lambda: self._attach(place), self._meanwhile)

    def _attach(self, place: Place) -> Member:
        session = Session(place.door, self._raw)
        session.attach(self._generation, {"pid": 0}, _ATTACH)
        if self._beating is None:
            self._beating = threading.Thread(target=self._beat, name="beating", daemon=True)
            self._beating.start()
        return Member(place, session, self._mirror)

    def _beat(self) -> None:
        """Beside the controller's thread, which may wait for its store longer than agents wait for
        a word."""
        while not self._ended.wait(_BEAT):
            self._all(beat={})

    # -- what the controller wants --------------------------------------------------------------

    def send(self, **message: Any) -> None:
        for kind, body in message.items():
            getattr(self, f"_send_{kind}")(body)

    def _send_start(self, order: dict[str, Any]) -> None:
        memory = self._states.begin(int(order["gang"]), int(order["world_size"]))
        self._gang, self._holds = Gang.ordered({**order, "memory": memory}), None
        for member in self._members.values():
            member.ranks = []
        self._supply.stop()
        if not self._begin():
            self._supply.want(self._gang)

    def _begin(self) -> bool:
        """Order the first agent's part of the gang; the others' when it is known where they meet.
        Agents that have no rank are given back, unless a larger gang may come to have them. False:
        there is no room for it."""
        gang = self._gang
        shares = share(gang.world, self._supply.staying())
        if not shares or gang.order is None:
            return False
        gang.shares = shares
        for name, ranks in shares.items():
            self._members[name].ranks, self._members[name].gone = ranks, False
        for name, member in list(self._members.items()):
            if name not in shares and not self._supply.is_kept(member, gang):
                self._supply.give_back(name)
        self._nearby.tell(self._members)
        first = self._members[next(iter(shares))]
        part = {**gang.order, "ranks": first.ranks}
        if len(shares) > 1:
            part["host"] = first.place.door.host
        gang.told = {first.name}
        first.send(start=part)
        return True

    def _send_kill(self, body: dict[str, Any]) -> None:
        if self._supply.is_wanting():
            self._supply.stop()
        self._gang.killed = True
        for member in self._members.values():
            if member.name not in self._gang.told and self._gang.order is not None:
                member.gone = True  # it never heard of this gang
        self._all(kill=body)
        self._tell_if_gone()

    def _send_drain(self, body: dict[str, Any]) -> None:
        self._all(drain={**body, "at": self._gang.agreed(body["margin"])})

    def _send_save(self, body: dict[str, Any]) -> None:
        self._all(save={**body, "at": self._gang.agreed(body["margin"])})

    def _send_reply(self, body: dict[str, Any]) -> None:
        self._to_rank(body["rank"], reply=body)

    def _send_restart(self, body: dict[str, Any]) -> None:
        self._to_rank(body["rank"], restart=body)

    def _send_ack(self, number: int) -> None:
        for member in self._members.values():
            member.acknowledge(number)

    def _all(self, **message: Any) -> None:
        for member in list(self._members.values()):
            member.send(**message)

    def _tell_agent(self, name: str, **message: Any) -> None:
        if name in self._members:
            self._members[name].send(**message)

    def _to_rank(self, rank: int, **message: Any) -> None:
        for member in self._members.values():
            if rank in member.ranks:
                member.send(**message)

    # -- listening ------------------------------------------------------------------------------

    def hear(self, timeout: float) -> Message | None:
        until = time.monotonic() + timeout
        while not self._out:
            left = until - time.monotonic()
            try:
                source, message = self._raw.get(timeout=max(0.0001, min(left, _LOOK)))
            except queue.Empty:
                self._look()
                if time.monotonic() >= until and not self._out:
                    return None
            else:
                self._take(source, message)
        found = self._out.popleft()
        if "kept" in found:
            self._states.passed_on(found["kept"])
        return found

    def _look(self) -> None:
        """When nothing is left to be heard: who is silent, what is to be done from time to time."""
        now = time.monotonic()
        if now - self._listened > 1.0:  # it was us who did not listen
            for member in self._members.values():
                member.heard_at = now
        self._listened = now
        self._nearby.tell(self._members)
        self._states.look(self._gang, list(self._members))
        self._tell_kept()
        for member in list(self._members.values()):
            if now - member.heard_at > SILENCE:
                self._lose(member, f"no sign of life for {SILENCE:g} s", silent=True)
            elif now - member.heard_at > _DOUBT:
                self._try_again(member)
        if self._losing is not None:
            self._tell_lost()
        elif self._gang.shares:
            self._supply.look(self._gang)

    def _take(self, source: object, message: Message) -> None:
        if self._supply.is_mine(source):
            found = self._supply.hear(source, message, self._gang)
            if found is not None and "placed" not in found:
                self._out.append(found)
            elif found is not None and not self._begin():
                self._supply.want(self._gang)
            return
        member = next((each for each in self._members.values() if each.is_source(source)), None)
        if member is None:
            return
        if "lost" in message:
            self._on_lost(member, source, message["lost"])
        elif member.is_new(message.get("seq")):
            kind, body = next((k, v) for k, v in message.items() if k != "seq")
            getattr(self, f"_on_{kind}", self._pass_on)(member, body, kind)

    def _on_lost(self, member: Member, source: object, why: str) -> None:
        """A session broke, or none can be had any more."""
        if source is member.again:
            self._lose(member, why)
        else:
            self._try_again(member)

    def _try_again(self, member: Member) -> None:
        """Whether it is lost is told by its silence, or by its machine."""
        member.try_again(lambda: Again(member.place, self._generation, self._raw))

    def _pass_on(self, member: Member, body: Any, kind: str) -> None:
        self._numbers += 1
        member.passed_on(self._numbers)
        self._out.append({"seq": self._numbers, kind: body})

    # -- what agents say ------------------------------------------------------------------------

    def _on_attached(self, member: Member, body: dict[str, Any], _: str) -> None:
        """A session's first word."""
        member.lends = Door(**body["lends"]) if "lends" in body else None
        if member.again is not None and member.again.session is not None:
            member.spoken_to_again(member.again.session, int(body["heard"]))

    def _on_beat(self, member: Member, body: dict[str, Any], _: str) -> None:
        member.has_heard(int(body["heard"]))
        member.acknowledge()

    def _on_ready(self, member: Member, body: dict[str, Any], kind: str) -> None:
        member.ready = True
        self._pass_on(member, body, kind)

    def _on_listens(self, member: Member, body: dict[str, Any], _: str) -> None:
        """The first agent has a place where ranks find each other."""
        gang = self._gang
        if not gang.is_it(body) or gang.order is None or gang.killed:
            return
        for name, ranks in list(gang.shares.items())[1:]:
            part = {**gang.order, "ranks": ranks, "rendezvous": body["rendezvous"]}
            if name in self._members:
                gang.told.add(name)
                self._members[name].send(start=part)

    def _on_started(self, member: Member, body: dict[str, Any], _: str) -> None:
        if self._gang.is_it(body) and (pids := self._gang.started(body["pids"])):
            where = {
                str(rank): {"node": each.name, "host": each.place.door.host}
                for each in self._members.values()
                for rank in each.ranks
            }
            self._out.append({"started": {"gang": body["gang"], "pids": pids, "where": where}})

    def _on_progress(self, member: Member, body: dict[str, Any], _: str) -> None:
        if self._gang.is_it(body) and len(body["steps"]) == self._gang.world:
            steps = self._gang.progressed(member.ranks, body["steps"])
            self._out.append({"progress": {"gang": self._gang.number, "steps": steps}})

    def _on_exited(self, member: Member, body: dict[str, Any], kind: str) -> None:
        """Of ranks that are ended because an agent is lost nothing is told: it is their cause."""
        if self._losing is None:
            self._blame.exited(self._gang, member, body)
            self._pass_on(member, body, kind)

    def _on_hung(self, member: Member, body: dict[str, Any], kind: str) -> None:
        self._blame.hung(self._gang, member, body)
        self._pass_on(member, body, kind)

    def _on_parts(self, member: Member, body: dict[str, Any], _: str) -> None:
        """What an agent has of states in memory."""
        self._states.heard(member.name, body)
        self._tell_kept()

    def _tell_kept(self) -> None:
        if (news := self._states.news()) is not None:
            self._out.append({"kept": news})

    def _on_gone(self, member: Member, body: dict[str, Any], _: str) -> None:
        if self._gang.is_it(body):
            member.gone = True
            self._tell_if_gone()

    def _tell_if_gone(self) -> None:
        if self._losing is not None:
            self._tell_lost()
        elif all(member.gone for member in self._members.values()):
            self._out.append({"gone": {"gang": self._gang.number}})

    def _on_holds(self, member: Member, body: dict[str, Any], _: str) -> None:
        """Those that were found: do they all run one gang, and all of it?"""
        if self._holds is None:
            return  # a new one, which has none
        self._holds[member.name] = body
        member.ranks, member.gone = list(body["ranks"]), not body["ranks"]
        self._compare_what_they_hold()

    def _compare_what_they_hold(self) -> None:
        holds = self._holds
        assert holds is not None
        if len(holds) < len(self._members):
            return
        busy = [each for each in self._members.values() if each.ranks]
        ranks = sorted(rank for each in busy for rank in each.ranks)
        numbers = {holds[each.name]["gang"] for each in busy}
        worlds = {holds[each.name]["world_size"] for each in busy}
        whole = len(numbers) == 1 and worlds == {len(ranks)} and ranks == list(range(len(ranks)))
        self._gang = Gang(max(numbers, default=0), len(ranks))
        self._gang.shares = {each.name: each.ranks for each in busy}
        self._states.adopt(self._gang.number, self._gang.world)
        self._holds = None
        number = self._gang.number if whole else 0
        self._out.append({"holds": {"gang": number, "to": self._generation}})

    # -- losing ---------------------------------------------------------------------------------

    def _lose(self, member: Member, why: str, silent: bool = False) -> None:
        """Give it up; the others' ranks end before the controller hears of it."""
        _log.error("an agent is lost", extra=log.facts(node=member.name, why=why))
        self._forget(member, silent)
        self._supply.stop_growing()
        if self._holds is not None:  # it was found, and had not told what it has
            self._holds.pop(member.name, None)
            self._compare_what_they_hold()
            return
        if not member.ranks:
            return  # it had none of the gang
        self._blame.note(self._gang, member, f"its agent was lost: {why}")
        if self._losing is None:
            told = {"node": member.name, "host": member.place.door.host, "why": why}
            self._losing = ({"lost": told}, time.monotonic() + _CLEAR)
            self._all(kill={"gang": self._gang.number})
        self._tell_lost()

    def _tell_lost(self) -> None:
        assert self._losing is not None
        told, until = self._losing
        left = [each for each in self._members.values() if not each.gone]
        if left and time.monotonic() < until:
            return
        self._losing = None
        for member in left:  # one whose ranks do not go is as good as lost
            self._forget(member, silent=True)
        self._out.append(told)

    def _forget(self, member: Member, silent: bool) -> None:
        del self._members[member.name]
        self._states.forget(member.name)
        self._tell_kept()
        member.close(finally_look=False)
        self._places.drop(member.place, silent)
