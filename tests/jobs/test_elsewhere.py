"""The slots of an agent of a fleet: what stays is the fleet's to say, and what others may read."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.jobs.agent.children import Child
from penstock.jobs.agent.elsewhere import Elsewhere
from penstock.jobs.agent.outbox import Outbox
from penstock.jobs.agent.parts import Parts
from penstock.jobs.agent.sharing import Sharing
from penstock.jobs.neighbours.doors import Neighbours

SIZE = 1 << 16
SEAL = {"nbytes": 10, "tail": 2, "xxh3": ""}


class Agent:
    """Only what lies around `Sharing`: messages to children are noted; it has no neighbours."""

    def __init__(self, scratch: Path) -> None:
        self.said: list[tuple[int, dict[str, Any]]] = []
        self.fds: list[tuple[int, ...]] = []
        self.outbox = Outbox()
        self.ranks: dict[int, Child] = {}
        self.parts = Parts()
        self.elsewhere = Elsewhere(self.parts, lambda: 1 << 30, Neighbours, lambda *_: None)
        family = SimpleNamespace(tell=self.tell, image=SimpleNamespace(ready=False))
        spec = {"memory_bytes": None, "scratch": str(scratch), "sidecars": {}}
        self.sharing = Sharing(
            spec,
            family,  # type: ignore[arg-type]
            self.outbox,
            lambda: self.ranks,
            self.elsewhere,
        )

    def tell(self, child: Child, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        self.said.append((child.rank, message))
        self.fds.append(fds)

    def gang(self, number: int, *here: int, world: int = 2) -> list[Child]:
        self.ranks = {
            rank: Child("rank", f"rank-{rank}", number, rank, None, {})  # type: ignore[arg-type]
            for rank in here
        }
        self.elsewhere.begin({}, same=True)
        self.sharing.new_gang(number, world, list(here))
        return list(self.ranks.values())

    def allocate(self, child: Child) -> dict[str, Any]:
        wanted = {"bytes": SIZE, "least": SIZE, "count": 3}
        self.sharing.allocate(child, {"id": 1, "payload": wanted})
        return self.said[-1][1]["reply"]["payload"]  # type: ignore[no-any-return]

    def keep(self, child: Child, slot: str, step: int, hands: bool = False) -> None:
        body = {"slot": slot, "step": step, "seal": SEAL, "seconds": 0.01, "hands": hands}
        self.sharing.kept(child, body)

    def lend(self, child: Child, gang: int, step: int, seat: int) -> dict[str, Any]:
        payload = {"seat": seat, "gang": gang, "step": step}
        self.sharing.lend(child, {"id": 2, "payload": payload})
        return self.said[-1][1]["reply"]["payload"]  # type: ignore[no-any-return]

    def told(self) -> list[tuple[int, ...]]:
        found = [event["parts"] for event in self.outbox.after(0, 0) if "parts" in event]
        return [tuple(each) for each in found[-1]["parts"]]

    def freed(self) -> list[str]:
        return [message["free"] for _, message in self.said if "free" in message]


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


def test_what_the_fleet_wants_stays_and_beside_it_the_newest(agent: Agent) -> None:
    (rank,) = agent.gang(1, 0)
    slots = agent.allocate(rank)["slots"]
    agent.keep(rank, slots[0], 10)
    assert agent.told() == [(1, 10, 0)] and agent.freed() == []
    agent.sharing.stay([(1, 10)])
    agent.keep(rank, slots[1], 20)
    assert agent.told() == [(1, 10, 0), (1, 20, 0)] and agent.freed() == []
    agent.keep(rank, slots[2], 30)
    assert agent.told() == [(1, 10, 0), (1, 30, 0)] and agent.freed() == [slots[1]]
    agent.sharing.stay([(1, 30)])
    assert agent.told() == [(1, 30, 0)] and agent.freed() == [slots[1], slots[0]]


def test_while_a_neighbour_reads_one_a_newer_one_is_left_out(agent: Agent) -> None:
    (rank,) = agent.gang(1, 0)
    slots = agent.allocate(rank)["slots"]
    agent.keep(rank, slots[0], 10)
    with agent.parts.reading((1, 10, 0)):
        agent.keep(rank, slots[1], 20)
    assert agent.told() == [(1, 10, 0)] and agent.freed() == [slots[1]]


def test_a_slot_that_is_to_be_handed_over_is_not_free_before(agent: Agent) -> None:
    """Else a rank would fill it while a sidecar reads it."""
    (rank,) = agent.gang(1, 0)
    slots = agent.allocate(rank)["slots"]
    agent.keep(rank, slots[0], 10)
    with agent.parts.reading((1, 10, 0)):
        agent.keep(rank, slots[1], 20, hands=True)
    assert agent.told() == [(1, 10, 0)] and agent.freed() == []
    agent.sharing.handed(rank, {"slot": slots[1], "step": 20, "to": "checkpoint"})
    agent.sharing.released(0, slots[1])
    assert agent.freed() == [slots[1]]


def test_with_another_number_an_agent_still_has_what_its_ranks_kept(agent: Agent) -> None:
    (rank,) = agent.gang(1, 1)
    slots = agent.allocate(rank)["slots"]
    agent.keep(rank, slots[0], 10)
    agent.sharing.stay([(1, 10)])
    agent.keep(rank, slots[1], 20)  # its gang died before the others had it
    inode = os.fstat(agent.fds[0][0]).st_ino

    (new,) = agent.gang(2, 0)
    assert agent.told() == [(1, 10, 1)]
    assert agent.lend(new, 1, 10, 1)["seal"] == SEAL
    assert os.fstat(agent.fds[-1][0]).st_ino == inode
    assert agent.lend(new, 1, 10, 0) == {}  # nobody is known to have it
    assert agent.allocate(new)["busy"] == []
    agent.sharing.stay([(2, 5)])
    assert agent.told() == []


def test_states_of_another_number_of_ranks_go(agent: Agent) -> None:
    (rank,) = agent.gang(1, 0)
    slots = agent.allocate(rank)["slots"]
    agent.keep(rank, slots[0], 10)
    agent.sharing.stay([(1, 10)])
    agent.elsewhere.begin({}, same=False)
    agent.sharing.new_gang(2, 1, [0])
    assert agent.told() == []
