"""What is whole in the memory of several agents, what may go, what is copied; without agents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.jobs.backends.gang import Gang
from penstock.jobs.backends.states import States
from penstock.jobs.backends.whole import missing, next_in, whole


class Fleet:
    """Agents that do at once what they are told; only what lies around `States`."""

    def __init__(self, world: int = 2, agents: str = "ab") -> None:
        self.now = 0.0
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.told: list[tuple[int, int]] = []
        self.states = States(self._send, lambda: self.now)
        self.has: dict[str, set[tuple[int, int, int]]] = {name: set() for name in agents}
        self.without: dict[str, set[tuple[int, int, int]]] = {name: set() for name in agents}
        self.paced: dict[str, float | None] = {}
        self.gang = Gang(0, 0)
        self.copies = True  # whether they are made

    def _send(self, agent: str, **message: Any) -> None:
        self.said.append((agent, message))

    def begin(self, number: int, world: int = 2) -> dict[str, Any]:
        self.gang = Gang(number, world)
        self.gang.shares = {name: [rank] for rank, name in enumerate(list(self.has)[:world])}
        return self.states.begin(number, world)

    def keep(self, step: int, *ranks: int) -> None:
        for name, (rank,) in self.gang.shares.items():
            if rank in (ranks or range(self.gang.world)):
                self.has[name].add((self.gang.number, step, rank))
                self.tell(name)
        self.settle()

    def tell(self, name: str) -> None:
        body = {"parts": sorted(self.has[name]), "without": sorted(self.without[name])}
        about = {"paced": name in self.paced, "cost": self.paced.get(name)}
        self.states.heard(name, {**body, **about})

    def lose(self, name: str) -> None:
        del self.has[name]
        self.states.forget(name)

    def hear(self) -> None:
        """What the controller is told, it knows."""
        if (news := self.states.news()) is not None:
            self.told.append((news["gang"], news["step"]))
            self.states.passed_on(news)

    def settle(self) -> None:
        """Until nothing is said any more."""
        for _ in range(10):
            self.hear()
            self.states.look(self.gang, list(self.has))
            said, self.said = self.said, [m for m in self.said if "keep" in m[1]]
            for name, message in said:
                self._do(name, message)

    def _do(self, name: str, message: dict[str, Any]) -> None:
        if "stay" in message:
            stays = {tuple(each) for each in message["stay"]["states"]}
            newest = max((part[:2] for part in self.has[name]), default=None)
            self.has[name] = {p for p in self.has[name] if p[:2] in stays or p[:2] == newest}
        elif "copy" in message and self.copies:
            self.has[name] |= set(message["copy"]["parts"])
        elif "copy" in message:
            self.without[name] |= set(message["copy"]["parts"])
        else:
            return
        self.tell(name)


@pytest.fixture
def fleet() -> Fleet:
    found = Fleet()
    found.begin(1)
    return found


def test_a_state_is_whole_when_all_parts_are_there_and_then_it_is_copied(fleet: Fleet) -> None:
    fleet.keep(10, 0)
    assert fleet.told == []
    fleet.keep(10)
    assert fleet.told == [(1, 10)]
    assert fleet.has == {name: {(1, 10, 0), (1, 10, 1)} for name in "ab"}


def test_while_copies_are_under_way_the_loss_of_an_agent_costs_one_state(fleet: Fleet) -> None:
    fleet.keep(10)
    fleet.gang.shares, ring = {}, fleet.gang.shares  # nobody copies now
    fleet.states.look(fleet.gang, ["a", "b"])
    fleet.has["a"].add((1, 20, 0))
    fleet.has["b"].add((1, 20, 1))
    for name in "ab":
        fleet.tell(name)
    fleet.settle()
    assert fleet.told[-1] == (1, 20) and (1, 10, 0) in fleet.has["b"]
    fleet.gang.shares = ring
    fleet.lose("a")
    fleet.hear()
    assert fleet.told[-1] == (1, 10)
    assert fleet.states.kept() == (1, 10, 2)
    fleet.has["c"] = set()
    assert fleet.begin(2) == {"state": [1, 10], "where": {"0": ["b"], "1": ["b"]}}


def test_both_who_had_a_part_are_lost() -> None:
    fleet = Fleet(3, "abc")
    fleet.begin(1, 3)
    fleet.keep(10)
    assert fleet.told == [(1, 10)]
    fleet.lose("a")
    fleet.hear()
    assert fleet.states.kept() == (1, 10, 3)
    fleet.lose("b")  # which had the copy of the first's
    fleet.hear()
    assert fleet.states.kept() == (0, 0, 3) and fleet.told[-1] == (0, 0)


def test_between_two_gangs_nothing_newer_is_told(fleet: Fleet) -> None:
    """The controller chose; what it chose must not go because a word was late."""
    fleet.keep(10)
    fleet.begin(2)
    fleet.has["a"].add((1, 20, 0))
    fleet.has["b"].add((1, 20, 1))
    for name in "ab":
        fleet.tell(name)
    fleet.settle()
    assert fleet.told == [(1, 10)]
    assert (1, 10, 0) in fleet.has["a"]
    fleet.keep(5)
    assert fleet.told == [(1, 10), (2, 5)]


def test_what_the_controller_has_not_heard_yet_lets_nothing_go(fleet: Fleet) -> None:
    fleet.keep(10)
    fleet.has["a"] |= {(1, 20, 0), (1, 20, 1)}
    fleet.has["b"] |= {(1, 20, 0), (1, 20, 1)}
    for name in "ab":
        fleet.tell(name)
    assert fleet.states.news() is not None  # on its way
    fleet.states.look(fleet.gang, ["a", "b"])
    stays = [m["stay"]["states"] for _, m in fleet.said if "stay" in m]
    assert stays and all((1, 10) in each for each in stays)


def test_a_state_of_another_number_of_ranks_is_of_no_use(fleet: Fleet) -> None:
    fleet.keep(10)
    assert fleet.begin(2, 1) == {}
    fleet.settle()
    assert fleet.states.kept() == (0, 0, 1)


def test_without_room_for_a_copy_the_state_is_whole_all_the_same(fleet: Fleet) -> None:
    fleet.copies = False
    fleet.keep(10)
    fleet.keep(20)
    assert fleet.told == [(1, 10), (1, 20)]
    assert fleet.has["a"] == {(1, 20, 0)}  # the older one went: nothing better will come
    fleet.lose("b")
    fleet.hear()
    assert fleet.told[-1] == (0, 0)


def test_the_next_state_is_announced_when_the_last_is_safe(fleet: Fleet) -> None:
    fleet.paced = {"a": 0.01, "b": 0.02}
    for name in "ab":
        fleet.tell(name)

    def announced() -> list[int]:
        found = [m["keep"]["at"] for name, m in fleet.said if "keep" in m and name == "a"]
        fleet.said.clear()
        return found

    def steps(both: int) -> list[int]:
        fleet.gang.progressed([0], [both, 0])
        fleet.gang.progressed([1], [0, both])
        fleet.settle()
        return announced()

    assert steps(0) == []
    (at,) = steps(50)
    assert at > 50
    assert steps(at - 1) == []  # before they are there
    assert steps(at) == []  # not safe yet
    fleet.keep(at)
    (later,) = announced()
    assert later > at
    assert steps(later) == []
    fleet.now += 60.0  # some rank left it out
    assert len(steps(later + 1)) == 1


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=4, unique=True), st.data())
def test_any_one_agent_may_be_lost_once_all_copies_are_made(ring: list[str], data: Any) -> None:
    world = data.draw(st.integers(1, 6))
    has: dict[str, set[tuple[int, int, int]]] = {name: set() for name in ring}
    for rank in range(world):
        has[data.draw(st.sampled_from(ring))].add((1, 5, rank))
    for to, source, parts in missing(has, (1, 5), world, ring, ()):
        assert set(parts) <= has[source] and to != source
        has[to] |= set(parts)
    for lost in ring:
        left = {name: parts for name, parts in has.items() if name != lost}
        assert whole(left, world) == [(1, 5)]


def test_the_ring_of_agents() -> None:
    assert [next_in(["a", "b", "c"], each) for each in "abcx"] == ["b", "c", "a", "a"]
    assert next_in(["a"], "a") is None
