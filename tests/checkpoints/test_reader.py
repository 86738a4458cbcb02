"""Loading is an identity at every world size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock.checkpoints as ck
from penstock.base.errors import BadInput
from penstock.blobs import open_blobs
from penstock.checkpoints.layout import SPLIT_ABOVE


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 400), max_size=12),
    large=st.booleans(),
    saved=st.integers(1, 5),
    loaded=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_saved_at_any_world_size_and_loaded_at_any_other(
    counts, large, saved, loaded, seed, save, same
) -> None:
    blobs = open_blobs("memory://")
    torch.manual_seed(seed)
    shared = {f"t{n}": torch.randn(count) for n, count in enumerate(counts)}
    if large:
        shared["large"] = torch.randn(SPLIT_ABOVE // 2)
    owns = [{"rng": torch.full((33,), rank), "rank": rank} for rank in range(saved)]
    manifest = ck.read_manifest(blobs, save(blobs, shared, owns, cursor=seed).digest)
    for rank in range(loaded):
        state = ck.load(blobs, manifest, rank, loaded)
        assert same(state.shared, shared)
        assert state.extra == {"cursor": seed}
        assert same(state.own, owns[rank]) if saved == loaded else state.own is None


def test_a_model_goes_on_from_what_was_loaded(memory, save, trained) -> None:
    shared = trained(3)
    manifest = ck.read_manifest(memory, save(memory, shared, [{}, {}]).digest)
    state = ck.load(memory, manifest, 1, 2).shared
    assert ck.weights_digest(state["model"]) == ck.weights_digest(shared["model"])
    parameters = [torch.nn.Parameter(torch.zeros_like(p)) for p in shared["model"].values()]
    optimizer = torch.optim.AdamW(parameters)
    optimizer.load_state_dict(state["optimizer"])
    assert torch.equal(
        optimizer.state[parameters[0]]["exp_avg"], shared["optimizer"]["state"][0]["exp_avg"]
    )


def test_a_rank_reads_only_what_it_needs(memory, save) -> None:
    own = {"rng": torch.zeros(100_000)}
    checkpoint = save(memory, {"w": torch.zeros(1000)}, [own, own, own])
    manifest = ck.read_manifest(memory, checkpoint.digest)
    counting = Counting(memory)
    ck.load(counting, manifest, 0, 3)
    assert counting.bytes < 2 * 400_000
    counting = Counting(memory)
    ck.load(counting, manifest, 0, 1)
    assert counting.bytes < 8_000


def test_loaded_tensors_can_be_trained_in_place(memory, save) -> None:
    checkpoint = save(memory, {"a": torch.zeros(3), "b": torch.zeros(3)}, [{}])
    state = ck.load(memory, ck.read_manifest(memory, checkpoint.digest), 0, 1).shared
    state["a"] += 1
    assert state["b"].sum() == 0


def test_a_rank_outside_the_world_is_refused(memory, save) -> None:
    manifest = ck.read_manifest(memory, save(memory, {}, [{}]).digest)
    with pytest.raises(BadInput, match="rank 1 is not one of 1"):
        ck.load(memory, manifest, 1, 1)


def test_importing_the_room_loads_neither_torch_nor_numpy() -> None:
    import subprocess
    import sys

    code = "import sys, penstock.checkpoints; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Counting:
    """A store that counts the bytes read through `open`."""

    def __init__(self, blobs) -> None:
        self._blobs, self.bytes = blobs, 0

    def open(self, digest):
        from contextlib import contextmanager

        @contextmanager
        def opened():
            with self._blobs.open(digest) as stream:
                yield self._Stream(self, stream)

        return opened()

    class _Stream:
        def __init__(self, counter, stream) -> None:
            self._counter, self._stream = counter, stream
            self.seek = stream.seek

        def read(self, size: int) -> bytes:
            data = self._stream.read(size)
            self._counter.bytes += len(data)
            return data
