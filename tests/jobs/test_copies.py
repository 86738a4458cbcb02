"""Copies of states between agents' memories: what comes is what was kept, or nothing comes."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.jobs.agent import door
from penstock.jobs.agent.copies import Copies
from penstock.jobs.agent.lending import Lending
from penstock.jobs.agent.memory import memory_buffer
from penstock.jobs.agent.parts import Part, Parts
from penstock.jobs.neighbours import reads
from penstock.jobs.neighbours.doors import Neighbours

SIZE = reads.TRANCHE + 5 * reads.PIECE + 77
SEAL = {"nbytes": SIZE - 7, "tail": 7, "xxh3": "x"}
NAME = (3, 40, 1)
Found = tuple[tuple[int, int, int], Part | None, dict[str, Any]]


class Lender:
    """An agent's side that gives."""

    def __init__(self, home: Path) -> None:
        self.parts = Parts()
        read = Lending(home, False, self.parts).read
        opened = door.open_for_neighbours({"elsewhere": {"host": "127.0.0.1"}}, read)
        assert opened is not None
        self.server, self.door = opened

    def add(self, data: bytes, name: tuple[int, int, int] = NAME) -> Part:
        handle = memory_buffer("slot", len(data) + 4096)  # a slot has room behind
        os.pwrite(handle, data, 0)
        part = Part(handle, len(data), SEAL)
        self.parts.add(name, part)
        return part


@pytest.fixture
def lender(tmp_path: Path) -> Iterator[Lender]:
    found = Lender(tmp_path)
    yield found
    found.server.stop(0).wait()


class Taker:
    def __init__(self, room: int = 1 << 30) -> None:
        self.parts = Parts()
        self.found: queue.Queue[Found] = queue.Queue()
        self.copies = Copies(self.parts, lambda: room, lambda *found: self.found.put(found))

    def pull(self, lender: Lender, *names: tuple[int, int, int]) -> Found:
        told = Neighbours("me", {"one": lender.door})
        self.copies.pull(names or [NAME], ["gone", "one"], told)
        found = self.found.get(timeout=20)
        if found[1] is not None:
            self.copies.add(found[0], found[1])
        else:
            self.copies.failed(found[0])
        return found


def test_a_part_arrives_as_it_was_with_its_seal(lender: Lender) -> None:
    data = os.urandom(SIZE)
    lender.add(data)
    taker = Taker()
    name, part, _ = taker.pull(lender)
    assert name == NAME and part is not None and part.seal == SEAL
    assert os.pread(part.handle, SIZE + 1, 0) == data
    assert taker.copies.get(NAME) == part and taker.parts.names() == {NAME}
    assert taker.copies.nbytes == SIZE
    taker.copies.keep_only([NAME[:2]])
    assert taker.copies.nbytes == SIZE
    taker.copies.keep_only([(3, 41)])
    assert (taker.copies.nbytes, taker.parts.names()) == (0, set())


def test_what_is_not_there_does_not_come(lender: Lender) -> None:
    assert Taker().pull(lender)[1:] == (None, {})


def test_without_room_it_is_left_out_and_told_how_much_there_was(lender: Lender) -> None:
    lender.add(b"x" * 5000)
    taker = Taker(room=4000)
    assert taker.pull(lender)[1:] == (None, {"wanted": 5000, "room": 4000})
    assert taker.copies.nbytes == 0


def test_a_part_that_goes_while_it_is_read_is_not_a_part(lender: Lender) -> None:
    """Its slot is filled anew then: what was read of it would be two states in one."""
    part = lender.add(b"a" * SIZE)
    reader = reads.Reader(lender.door)
    _, pieces = reader.begin({"state": list(NAME)})
    got = len(next(pieces))
    assert lender.parts.is_read(NAME)
    lender.parts.remove(NAME)
    os.pwrite(part.handle, b"b" * SIZE, 0)
    with pytest.raises(reads.Unavailable, match="went while it was read"):
        for piece in pieces:
            assert b"b" not in piece
            got += len(piece)
    assert got < SIZE
    reader.close()


def test_shards_are_not_given_where_that_is_switched_off(lender: Lender, tmp_path: Path) -> None:
    name = f"{1:064x}.arrow"
    (tmp_path / "cache" / "shards" / "v2").mkdir(parents=True)
    (tmp_path / "cache" / "shards" / "v2" / name).write_bytes(b"rows")
    reader = reads.Reader(lender.door)
    with pytest.raises(reads.NotThere):
        reader.begin({"shard": f"v2/{name}"})
    reader.close()


@pytest.mark.parametrize("asked", [{"state": "x"}, {"state": [1]}, {"state": [1, 2, 3], "at": -1}])
def test_nonsense_is_refused(lender: Lender, asked: dict[str, Any]) -> None:
    reader = reads.Reader(lender.door)
    with pytest.raises(reads.Unavailable, match="INVALID_ARGUMENT"):
        list(reader._tranche({"at": 0, **asked}))
    reader.close()
