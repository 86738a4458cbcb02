"""Who writes what: every byte once, evenly, the same on every rank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import penstock.checkpoints as ck
from penstock.base.errors import BadInput
from penstock.checkpoints.chunks import LARGEST, cut
from penstock.checkpoints.layout import ALIGNMENT, SPLIT_ABOVE, Piece, spans

sizes = st.lists(
    st.one_of(st.integers(0, 300), st.integers(SPLIT_ABOVE - 2, 9 * SPLIT_ABOVE)), max_size=12
)


@given(sizes, st.integers(1, 9))
def test_every_byte_belongs_to_exactly_one_rank(sizes, world_size) -> None:
    found = spans(sizes, world_size)
    assert len(found) == world_size
    follow = [0] * len(sizes)
    for entry, start, stop in (piece for rank in found for piece in rank):
        assert start == follow[entry] < stop
        assert start % ALIGNMENT == 0
        follow[entry] = stop
    assert follow == sizes


@given(sizes, st.integers(1, 9))
def test_no_rank_writes_much_more_than_its_share(sizes, world_size) -> None:
    shares = [sum(stop - start for _, start, stop in rank) for rank in spans(sizes, world_size)]
    assert max(shares) <= sum(sizes) / world_size + SPLIT_ABOVE + ALIGNMENT


@given(sizes, st.integers(1, 9))
def test_small_tensors_stay_whole(sizes, world_size) -> None:
    for rank in spans(sizes, world_size):
        for entry, start, stop in rank:
            assert sizes[entry] > SPLIT_ABOVE or (start, stop) == (0, sizes[entry])


@given(
    st.lists(st.tuples(st.sampled_from([1, 64, 5000, 70_000, 9 << 20]), st.booleans()), max_size=40)
)
def test_chunks_cover_the_part_and_never_mix_shared_with_own(shape) -> None:
    pieces, at = [], 0
    for size, own in sorted(shape, key=lambda item: item[1]):
        pieces.append(Piece("own" if own else "shared", len(pieces), 0, at, size))
        at += -(-size // ALIGNMENT) * ALIGNMENT
    chunks = cut(pieces, lambda piece: f"{piece.tree}.{piece.entry}", at)
    assert sum(chunk.nbytes for chunk in chunks) == at
    assert [c.offset for c in chunks] == [
        sum(c.nbytes for c in chunks[:n]) for n in range(len(chunks))
    ]
    for chunk in chunks:
        inside = [
            piece
            for piece in pieces
            if piece.offset < chunk.offset + chunk.nbytes
            and piece.offset + piece.nbytes > chunk.offset
        ]
        assert chunk.tensors == [f"{piece.tree}.{piece.entry}" for piece in inside]
        assert len({piece.tree for piece in inside}) == 1
        assert 0 < chunk.nbytes <= LARGEST


def test_a_small_model_has_several_chunks(trained, fill, memory) -> None:
    plan = ck.plan(trained(1), {"torch": torch.get_rng_state()}, 0, 1)
    part = ck.persist(fill(plan), plan.index, memory)
    assert len(part["chunks"]) >= 8


def test_ranks_share_the_work_and_each_adds_its_own() -> None:
    shared = {"a": torch.zeros(1000), "b": torch.zeros(1000), "c": torch.zeros(2000)}
    plans = [ck.plan(shared, {"rng": torch.zeros(10)}, rank, 2) for rank in range(2)]
    names = [
        [
            plan.index[piece["tree"]]["entries"][piece["entry"]]["name"]
            for piece in plan.index["pieces"]
        ]
        for plan in plans
    ]
    assert names == [["shared.a", "shared.b", "own.rng"], ["shared.c", "own.rng"]]


def test_a_large_tensor_is_split_over_the_ranks(memory, save) -> None:
    table = torch.arange(3 << 20, dtype=torch.int32)
    plans = [ck.plan({"table": table}, {}, rank, 3) for rank in range(3)]
    assert max(plan.nbytes for plan in plans) <= table.nbytes // 3 + ALIGNMENT
    checkpoint = save(memory, {"table": table}, [{}, {}, {}])
    manifest = ck.read_manifest(memory, checkpoint.digest)
    assert torch.equal(ck.load(memory, manifest, 0, 1).shared["table"], table)


def test_equal_states_give_equal_bytes_whatever_the_buffer_held() -> None:
    tree = {"a": torch.ones(3), "b": torch.ones(5, dtype=torch.bool), "c": b"x" * 999}
    plan = ck.plan(tree, {"d": torch.ones(1)}, 0, 1)
    clean, used = bytearray(plan.nbytes + 10), bytearray(b"\xff" * (plan.nbytes + 10))
    plan.copy_into(memoryview(clean))
    plan.copy_into(memoryview(used))
    assert clean[: plan.nbytes] == used[: plan.nbytes]
    assert used[plan.nbytes :] == b"\xff" * 10


def test_tensors_are_taken_when_they_are_copied() -> None:
    weight = torch.zeros(4, dtype=torch.uint8)
    plan = ck.plan({"w": weight}, {}, 0, 1)
    weight += 7
    buffer = bytearray(plan.nbytes)
    plan.copy_into(memoryview(buffer))
    assert buffer[:4] == b"\x07" * 4


@pytest.mark.parametrize("buffer", [memoryview(bytearray(8)), memoryview(bytes(4096))])
def test_a_buffer_that_is_too_small_or_read_only_is_refused(buffer) -> None:
    plan = ck.plan({"w": torch.zeros(100)}, {}, 0, 1)
    with pytest.raises(BadInput, match="cannot take"):
        plan.copy_into(buffer)


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(BadInput, match="rank 2 is not one of 2"):
        ck.plan({}, {}, 2, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_a_gpu_are_copied_whole(memory, save) -> None:
    shared = {"w": torch.randn(3000, 1000, device="cuda"), "t": torch.randn(64, 9).cuda().T}
    checkpoint = save(memory, shared, [{}, {}])
    manifest = ck.read_manifest(memory, checkpoint.digest)
    back = ck.load(memory, manifest, 0, 1).shared
    assert torch.equal(back["w"], shared["w"].cpu())
    assert torch.equal(back["t"], shared["t"].cpu())
    assert {entry.device for entry in manifest.shared.entries} == {"cuda"}
