"""States that stay in memory are read back as they were, or not at all."""

from __future__ import annotations

import mmap
from typing import Any

import pytest
import torch

import penstock.checkpoints as ck
from penstock.base.errors import Damaged


def state(rank: int, world: int = 2) -> tuple[dict[str, Any], dict[str, Any]]:
    shared = {"w": torch.arange(300_000, dtype=torch.float32), "n": 7, "b": torch.ones(3)}
    return shared, {"seed": torch.full((100,), rank)}


def filled(world: int = 2) -> tuple[list[mmap.mmap], list[dict[str, Any]]]:
    maps, seals = [], []
    for rank in range(world):
        plan = ck.plan(*state(rank), rank, world)
        memory = mmap.mmap(-1, ck.room(plan.index))
        view = memoryview(memory)
        plan.copy_into(view)
        seal = ck.seal(view, plan.index)
        view.release()
        assert seal is not None
        maps.append(memory)
        seals.append(seal)
    return maps, seals


def test_every_rank_reads_all_of_the_shared_state_and_its_own() -> None:
    maps, seals = filled()
    slots = ck.Slots("run-a", 12, maps, seals, 2)
    for rank in range(2):
        found = ck.load(slots, slots.manifest, rank, 2)
        shared, own = state(rank)
        assert torch.equal(found.shared["w"], shared["w"]) and found.shared["n"] == 7
        assert found.own is not None and torch.equal(found.own["seed"], own["seed"])
    slots.close()


@pytest.mark.parametrize("where", ["first byte", "last byte", "index"])
def test_a_byte_that_changed_is_found(where: str) -> None:
    maps, seals = filled()
    place = {"first byte": 0, "last byte": seals[1]["nbytes"] - 1, "index": seals[1]["nbytes"] + 5}
    maps[1][place[where]] ^= 1
    with pytest.raises(Damaged) as caught:
        slots = ck.Slots("run-a", 12, maps, seals, 2)
        ck.load(slots, slots.manifest, 1, 2)
    assert caught.value.facts["damage"]["rank"] == 1
    assert caught.value.facts["damage"]["step"] == 12


def test_a_slot_that_is_not_there_is_damage() -> None:
    maps, seals = filled()
    with pytest.raises(Damaged, match="rank 1 of checkpoint 12"):
        ck.Slots("run-a", 12, maps[:1], seals[:1], 2)


def test_without_room_for_its_index_a_slot_is_not_sealed() -> None:
    plan = ck.plan(*state(0), 0, 1)
    buffer = memoryview(bytearray(plan.nbytes + 10))
    plan.copy_into(buffer)
    assert ck.seal(buffer, plan.index) is None
