"""The agent's slots: whose they are, what stays in them, and who is not listened to any more."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.jobs.agent.children import Child
from penstock.jobs.agent.outbox import Outbox
from penstock.jobs.agent.sharing import Sharing

SIZE = 1 << 16
SEAL = {"nbytes": 10, "tail": 2, "xxh3": ""}


class Agent:
    """Only what lies around `Sharing`: messages to children are noted."""

    def __init__(self, scratch: Path, memory: int | None = None) -> None:
        self.said: list[tuple[int, dict[str, Any]]] = []
        self.outbox = Outbox()
        self.ranks: dict[int, Child] = {}
        family = SimpleNamespace(tell=self.tell, image=SimpleNamespace(ready=False))
        spec = {"memory_bytes": memory, "scratch": str(scratch), "sidecars": {}}
        self.sharing = Sharing(spec, family, self.outbox, lambda: self.ranks)  # type: ignore[arg-type]
        self.fds: list[tuple[int, ...]] = []

    def tell(self, child: Child, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        self.said.append((child.rank, message))
        self.fds.append(fds)

    def gang(self, number: int, world: int = 2) -> list[Child]:
        self.ranks = {
            rank: Child("rank", f"rank-{rank}", number, rank, None, {})  # type: ignore[arg-type]
            for rank in range(world)
        }
        self.sharing.new_gang(number, world, range(world))
        return list(self.ranks.values())

    def allocate(self, child: Child, size: int = SIZE) -> dict[str, Any]:
        wanted = {"bytes": size, "least": size, "count": 3}
        self.sharing.allocate(child, {"id": 1, "payload": wanted})
        return self.said[-1][1]["reply"]["payload"]

    def keep(self, child: Child, slot: str, step: int) -> None:
        body = {"slot": slot, "step": step, "seal": SEAL, "seconds": 0.01}
        self.sharing.kept(child, body)

    def kept(self) -> tuple[int, int]:
        found = [event["kept"] for event in self.outbox.after(0, 0) if "kept" in event]
        return (found[-1]["gang"], found[-1]["step"]) if found else (0, 0)

    def freed(self) -> list[tuple[int, str]]:
        return [(rank, message["free"]) for rank, message in self.said if "free" in message]


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(tmp_path)


def test_a_state_is_whole_when_all_seats_hold_it_and_the_one_before_is_let_go(agent: Agent) -> None:
    first, second = agent.gang(1)
    slots = [agent.allocate(child)["slots"] for child in (first, second)]
    agent.keep(first, slots[0][0], 10)
    assert agent.kept() == (0, 0)
    agent.keep(second, slots[1][0], 10)
    assert agent.kept() == (1, 10)
    agent.keep(first, slots[0][1], 20)
    assert agent.freed() == [] and agent.kept() == (1, 10)
    agent.keep(second, slots[1][1], 20)
    assert agent.kept() == (1, 20)
    assert agent.freed() == [(0, slots[0][0]), (1, slots[1][0])]


def test_before_all_ranks_have_slots_nothing_is_whole(agent: Agent) -> None:
    first, _ = agent.gang(1)
    agent.keep(first, agent.allocate(first)["slots"][0], 10)
    assert agent.kept() == (0, 0)


def test_the_next_gang_gets_the_same_memory_and_what_is_whole_in_it(agent: Agent) -> None:
    old = agent.gang(1)
    slots = [agent.allocate(child)["slots"] for child in old]
    for child, mine in zip(old, slots, strict=True):
        agent.keep(child, mine[0], 10)
    agent.keep(old[0], slots[0][1], 20)  # its gang died before the others held it
    inodes = [os.fstat(fd).st_ino for fd in agent.fds[1]]

    new = agent.gang(2)
    answer = agent.allocate(new[1])
    assert [os.fstat(fd).st_ino for fd in agent.fds[-1]] == inodes
    assert answer["slots"] == slots[1] and answer["busy"] == [slots[1][0]]
    assert agent.allocate(new[0])["busy"] == [slots[0][0]]
    agent.sharing.lend(new[0], {"id": 2, "payload": {"seat": 1, "gang": 1, "step": 10}})
    assert agent.said[-1][1]["reply"]["payload"]["seal"] == SEAL
    assert os.fstat(agent.fds[-1][0]).st_ino == inodes[0]
    agent.sharing.lend(new[0], {"id": 3, "payload": {"seat": 0, "gang": 1, "step": 20}})
    assert agent.said[-1][1]["reply"]["payload"] == {}

    agent.keep(new[0], slots[0][1], 5)
    agent.keep(new[1], slots[1][1], 5)
    assert agent.kept() == (2, 5)  # newer, though its step is not


def test_a_rank_of_an_older_gang_can_neither_keep_nor_hand_over(agent: Agent) -> None:
    old = agent.gang(1, world=1)[0]
    slots = agent.allocate(old)["slots"]
    agent.gang(2, world=1)
    before = len(agent.outbox.after(0, 0))
    agent.keep(old, slots[0], 30)
    agent.sharing.handed(old, {"slot": slots[0], "step": 30, "to": "checkpoint"})
    assert agent.kept() == (0, 0)
    assert len(agent.outbox.after(0, 0)) == before
    assert agent.allocate(agent.ranks[0])["busy"] == []


def test_states_of_another_number_of_ranks_are_forgotten(agent: Agent) -> None:
    child = agent.gang(1, world=1)[0]
    agent.keep(child, agent.allocate(child)["slots"][0], 10)
    assert agent.kept() == (1, 10)
    agent.gang(2, world=2)
    assert agent.kept() == (0, 0)


def test_a_slot_that_serves_both_tiers_is_free_when_neither_wants_it(agent: Agent) -> None:
    child = agent.gang(1, world=1)[0]
    slots = agent.allocate(child)["slots"]
    agent.keep(child, slots[0], 10)
    agent.sharing.handed(child, {"slot": slots[0], "step": 10, "to": "checkpoint"})
    agent.keep(child, slots[1], 20)
    assert agent.freed() == []
    sidecar = Child("sidecar", "checkpoint", 0, -1, None, {})  # type: ignore[arg-type]
    agent.sharing.done(sidecar, {"gang": 1, "rank": 0, "slot": slots[0], "step": 10})
    assert (0, {"done": slots[0]}) in agent.said
    assert agent.freed() == [(0, slots[0])]
    agent.sharing.handed(child, {"slot": slots[1], "step": 20, "to": "checkpoint"})
    agent.sharing.done(sidecar, {"gang": 1, "rank": 0, "slot": slots[1], "step": 20})
    assert agent.freed() == [(0, slots[0])]  # it is still the newest in memory


def test_a_larger_state_gets_larger_slots_and_what_is_read_is_not_taken_away(agent: Agent) -> None:
    child = agent.gang(1, world=1)[0]
    slots = agent.allocate(child)["slots"]
    descriptor = agent.fds[-1][0]
    agent.keep(child, slots[0], 10)
    agent.sharing.handed(child, {"slot": slots[0], "step": 10, "to": "checkpoint"})
    answer = agent.allocate(child, 2 * SIZE)
    assert answer["bytes"] == 2 * SIZE and not set(answer["slots"]) & set(slots)
    assert agent.kept() == (0, 0)
    os.fstat(descriptor)
    sidecar = Child("sidecar", "checkpoint", 0, -1, None, {})  # type: ignore[arg-type]
    agent.sharing.done(sidecar, {"gang": 1, "rank": 0, "slot": slots[0], "step": 10})
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


@pytest.mark.parametrize(
    "memory, keeps, in_memory", [(3 * SIZE, True, True), (2 * SIZE, False, True), (0, False, False)]
)
def test_without_room_for_three_slots_nothing_stays_and_it_is_said(
    tmp_path: Path, memory: int, keeps: bool, in_memory: bool
) -> None:
    agent = Agent(tmp_path, memory)
    child = agent.gang(1, world=1)[0]
    answer = agent.allocate(child)
    assert (answer["keeps"], answer["in_memory"]) == (keeps, in_memory)
    assert len(answer["slots"]) == (3 if keeps else 2)
    said = [event["tell"]["payload"] for event in agent.outbox.after(0, 0) if "tell" in event]
    assert said == ([] if keeps else [{"wanted": 3 * SIZE, "room": memory, "disk": not in_memory}])
    assert (agent.sharing.cost() is None) == (not keeps)
